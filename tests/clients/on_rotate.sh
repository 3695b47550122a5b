# on_rotate = ["sh", ".../on_rotate.sh", "/etc/pgbouncer"]: hands the new credential to PgBouncer.
set -eu
umask 077
cd "$1"
printf '"%s" "%s"\n' "$PGUSER" "$(cat "$DBX_ROTATOR_TOKEN_FILE")" >userlist.new
chown --reference=. userlist.new
mv userlist.new userlist.txt
[ ! -e pgbouncer.pid ] || kill -HUP "$(cat pgbouncer.pid)"
