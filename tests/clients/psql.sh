. "${0%/*}/tries.sh"
echo "version psql $("$PSQL" --version | cut -d ' ' -f 3)"
tries "$PSQL" service=orders -XAtwc 'select pg_backend_pid()'
