# COPY out and in again, and what came in is what went out.
. "${0%/*}/tries.sh"
echo "version psql $("$PSQL" --version | cut -d ' ' -f 3)"
lines=$(mktemp)
sum="select md5(string_agg(line, ',' order by line)), pg_backend_pid()"
copy() {
  "$PSQL" -XAtqw -v ON_ERROR_STOP=1 -F ' ' <<END
\\copy (select line from big where id <= 5000) to '$lines'
create temporary table came (line text);
\\copy came from '$lines'
$sum from came
\\gset came_
$sum from big where id <= 5000
\\gset went_
select 1 / (:'came_md5' = :'went_md5')::int, :came_pg_backend_pid;
END
}
connect() {
  said=$(copy 2>&1) || { echo "$said"; return 1; }
  echo "${said#1 }"
}
tries connect
