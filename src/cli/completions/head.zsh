    # The commands of the Python original are names of others.
    case $service in
        databricks-oauth-status) words=(dbx-rotator status "${(@)words[2,-1]}"); (( CURRENT += 1 )) ;;
        databricks-oauth-install) words=(dbx-rotator service install "${(@)words[2,-1]}"); (( CURRENT += 2 )) ;;
        databricks-oauth-restart) words=(dbx-rotator service restart "${(@)words[2,-1]}"); (( CURRENT += 2 )) ;;
        databricks-oauth-uninstall) words=(dbx-rotator service uninstall "${(@)words[2,-1]}"); (( CURRENT += 2 )) ;;
    esac
