# What every client that is a program does: connect anew again and again, and print a line for each try.

# The command prints the server's process.
tries() { # COMMAND...
  while :; do
    if said=$("$@" 2>&1); then echo ok $said; else echo failed: $said; fi
    sleep 0.5
  done
}
