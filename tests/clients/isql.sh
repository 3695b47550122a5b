# Tries of isql with `connection`, for those that source it.
. "${0%/*}/tries.sh"
# isql says no to standard input that has ended, so that only what it prints tells.
connect() {
  said=$(echo 'select pg_backend_pid()' | isql -b -v -d, -k "$connection" 2>&1)
  echo "$said"
  [ "$said" -gt 0 ] 2>/dev/null
}
echo "version psqlodbc $(dpkg-query -Wf '${Version}' odbc-postgresql | sed 's/.*://; s/-.*//')"
tries connect
