# As pgAdmin does with its password command. In a home of its own: the command renews what is due, and would do so for all others.
. "${0%/*}/tries.sh"
own=$HOME/own
mkdir -p "$own/.config/dbx-rotator"
(umask 077 && cd "$HOME/.config/dbx-rotator" && cp client-secret "$own/.config/dbx-rotator/" &&
  grep -Ev '^(service_file|token_file|on_rotate) ' config.toml >"$own/.config/dbx-rotator/config.toml")
export HOME="$own" XDG_CONFIG_HOME="$own/.config" XDG_STATE_HOME="$own/.local/state" PGPASSFILE="$own/.pgpass"
connect() {
  PGPASSWORD=$("$DBX_ROTATOR" token orders --min-valid 5s) PGPASSFILE=/nowhere "$PSQL" -XAtwc 'select pg_backend_pid()'
}
echo "version psql $("$PSQL" --version | cut -d ' ' -f 3)"
tries connect
