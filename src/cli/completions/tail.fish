
# What follows is not made from the command line's definition: the names of connections, and the commands of the Python original.
# A name comes from the configuration: it is data, and nothing in it is expanded or executed.
function __dbx_rotator_names
    set -l before (commandline -opc)
    set -e before[1]
    set -l current (commandline -ct)
    command dbx-rotator __connection-names $before "$current" 2>/dev/null </dev/null
end

function __dbx_rotator_is_before_command
    not contains -- -- (commandline -opc)
end

complete -c dbx-rotator -n "__fish_dbx_rotator_using_subcommand status token" -f -a "(__dbx_rotator_names)"
complete -c dbx-rotator -n "__fish_dbx_rotator_using_subcommand exec; and __dbx_rotator_is_before_command" -f -a "(__dbx_rotator_names)"
complete -c dbx-rotator -n "__fish_dbx_rotator_using_subcommand rotate" -l connection -x -a "(__dbx_rotator_names)"
complete -c databricks-oauth-rotator -w dbx-rotator
complete -c databricks-oauth-status -w 'dbx-rotator status'
complete -c databricks-oauth-install -w 'dbx-rotator service install'
complete -c databricks-oauth-restart -w 'dbx-rotator service restart'
complete -c databricks-oauth-uninstall -w 'dbx-rotator service uninstall'
