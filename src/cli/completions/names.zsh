
# A name comes from the configuration: it is data, and nothing in it is expanded or executed.
(( $+functions[_dbx_rotator_names] )) ||
_dbx_rotator_names() {
    local -a names expl
    names=("${(@f)$(command dbx-rotator __connection-names 2>/dev/null </dev/null)}")
    names=("${(@)names:#}")
    _wanted connections expl connection compadd -a names
}

