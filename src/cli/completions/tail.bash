
# What follows is not made from the command line's definition: the names of connections, and the commands of the Python original.
# A name comes from the configuration: it is data, and nothing in it is expanded or executed.
_dbx_rotator_and_names() {
    local before name quote= typed offered=()
    case ${1##*/} in
        databricks-oauth-status) before=(dbx-rotator status) ;;
        databricks-oauth-install) before=(dbx-rotator service install) ;;
        databricks-oauth-restart) before=(dbx-rotator service restart) ;;
        databricks-oauth-uninstall) before=(dbx-rotator service uninstall) ;;
        *) before=(dbx-rotator) ;;
    esac
    COMP_WORDS=("${before[@]}" "${COMP_WORDS[@]:1}")
    COMP_CWORD=$((COMP_CWORD + ${#before[@]} - 1))
    typed=${COMP_WORDS[COMP_CWORD]}
    _dbx__rotator dbx-rotator "$2" "${COMP_WORDS[COMP_CWORD - 1]}"
    case $typed in
        \'* | \"*) quote=${typed:0:1} typed=${typed:1} ;;
    esac
    while IFS= read -r name; do
        case $quote in
            # Within quotes the line is left as it is: what would have to be quoted there is not offered.
            \') case $name in *\'*) continue ;; esac ;;
            \") case $name in *[\"\`\\\$\!]*) continue ;; esac ;;
            *) printf -v name %q "$name" ;;
        esac
        [[ $name == "$typed"* ]] && offered+=("$name")
    done < <(command dbx-rotator __connection-names "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
    [ ${#offered[@]} -eq 0 ] || COMPREPLY=("${offered[@]}")
}

for _dbx_rotator_command in dbx-rotator databricks-oauth-{rotator,install,status,restart,uninstall}; do
    complete -F _dbx_rotator_and_names -o bashdefault -o default "$_dbx_rotator_command"
done
unset _dbx_rotator_command
