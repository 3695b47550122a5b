. "${0%/*}/tries.sh"
echo "version psql $("$PSQL" --version | cut -d ' ' -f 3)"
tries "$PSQL" service="${SERVICE:-orders}" -XAtwc 'select pg_backend_pid()'
