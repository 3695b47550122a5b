# A dump of 200 MB, now and then.
. "${0%/*}/tries.sh"
echo "version pg_dump $("$PROGRAMS/pg_dump" --version | cut -d ' ' -f 3)"
dumped=$(mktemp)
while :; do
  if said=$("$PROGRAMS/pg_dump" -w -t big -f "$dumped" 2>&1) && [ "$(wc -c <"$dumped")" -gt 200000000 ]; then
    echo ok
  else
    echo failed: $said, "$(wc -c <"$dumped") bytes"
  fi
  sleep 15
done
