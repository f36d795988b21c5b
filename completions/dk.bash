# bash completion for dk: dk itself is asked.
_dk() {
    local IFS=$'\n' rest=${COMP_LINE:0:COMP_POINT} word blank cur quote='' cut='' reply i
    local -a words=()
    # bash cuts words at colons: REV:PATH is put together again.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blank=${rest%%[![:blank:]]*}
        rest=${rest#"$blank"}
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && word=$rest
        rest=${rest#"$word"}
        if ((i > 0)) && [[ -z $blank ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
    done
    cur=${words[${#words[@]} - 1]}
    if [[ $cur == [\"\']* ]]; then
        quote=${cur:0:1}
        cur=${cur:1}
    else
        # What bash takes for done already is not to be given again.
        [[ $COMP_WORDBREAKS == *:* && $cur == *[:=]* ]] && cut=${cur%"${cur##*[:=]}"}
        cur=${cur//\\/}
    fi
    words[${#words[@]} - 1]=$cur
    COMPREPLY=()
    while IFS=$'\t' read -r reply _; do
        reply=${reply#"${cut//\\/}"}
        [[ -z $quote ]] && printf -v reply %q "$reply"
        COMPREPLY+=("$reply")
    done < <(COMPLETE=bash DK_COMPLETE_INDEX=$((${#words[@]} - 1)) dk -- "${words[@]}" 2> /dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[/:=] ]] && compopt -o nospace 2> /dev/null
    return 0
}
complete -o nosort -F _dk dk 2> /dev/null || complete -F _dk dk
