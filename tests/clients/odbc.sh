. "${0%/*}/tries.sh"
driver=$(ls /usr/lib/*/odbc/psqlodbcw.so | head -n 1)
connection="Driver=$driver;Server=$PGHOST;Port=$PGPORT;Database=$PGDATABASE;UID=$PGUSER;SSLmode=verify-full;pqopt={sslrootcert=$PGSSLROOTCERT}"
# isql says no to standard input that has ended, so that only what it prints tells.
connect() {
  said=$(echo 'select pg_backend_pid()' | isql -b -v -d, -k "$connection" 2>&1)
  echo "$said"
  [ "$said" -gt 0 ] 2>/dev/null
}
echo "version psqlodbc $(dpkg-query -Wf '${Version}' odbc-postgresql | sed 's/.*://; s/-.*//')"
tries connect
