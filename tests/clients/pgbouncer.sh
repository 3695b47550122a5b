# PgBouncer, which logs in as itself, and psql in front of it, which needs no password. It does not run as root.
. "${0%/*}/tries.sh"
as= place=$PGBOUNCER_PLACE
# That user cannot reach what is in the home directory of another.
cp "$CLIENTS"/pgbouncer/* "$place"
if [ "$(id -u)" = 0 ]; then
  as='--reuid=postgres --regid=postgres --clear-groups'
  chown -R postgres: "$place"
fi
cat >"$place/pgbouncer.ini" <<END
[databases]
$PGDATABASE = host=$PGHOST port=$PGPORT user=$PGUSER

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = $place
auth_type = trust
auth_file = $place/userlist.txt
pidfile = $place/pgbouncer.pid
server_tls_sslmode = verify-full
server_tls_ca_file = $PGSSLROOTCERT
; Each session with the server is used once, so that each is a login.
server_lifetime = 0
; A refusal is told soon, and not after minutes of waiting.
server_login_retry = 1
query_wait_timeout = 10
END
LD_LIBRARY_PATH=$place setpriv $as --pdeathsig=TERM -- "$place/pgbouncer" -q "$place/pgbouncer.ini" >"$place/log" 2>&1 &
while ! [ -S "$place/.s.PGSQL.6432" ]; do
  kill -0 $! || { cat "$place/log" >&2; exit 1; }
  sleep 0.1
done
echo "version $("$place/pgbouncer" --version | head -n 1)"
export PGHOST=$place PGPORT=6432 PGSSLMODE=disable PGPASSFILE=/nowhere
tries "$PSQL" -XAtwc 'select pg_backend_pid()'
