# pgbench again and again, with these options; each of its transactions is a try.
. "${0%/*}/tries.sh"
echo "version pgbench $("$PROGRAMS/pgbench" --version | cut -d ' ' -f 3)"
script=$(mktemp)
echo 'select 1' >"$script"
while :; do
  said=$("$PROGRAMS/pgbench" -n -f "$script" "$@" 2>&1)
  made=$(echo "$said" | sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p')
  case $said in
    *'number of failed transactions: 0 '*) yes ok | head -n "${made:-0}" ;;
    *) echo failed: $said ;;
  esac
done
