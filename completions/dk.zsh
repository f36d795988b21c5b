#compdef dk
# zsh completion for dk: dk itself is asked.
_dk() {
    local value help
    local -a plain open told shown
    while IFS=$'\t' read -r value help; do
        if [[ $value == *[/:=] ]]; then
            open+=("$value")
        elif [[ -n $help ]]; then
            told+=("$value")
            shown+=("$value -- $help")
        else
            plain+=("$value")
        fi
    done < <(COMPLETE=zsh DK_COMPLETE_INDEX=$((CURRENT - 1)) dk -- "${(@Q)words[1,CURRENT]}" 2> /dev/null)
    compadd -V plain -a plain
    compadd -V open -S '' -a open
    compadd -V told -l -d shown -a told
}
if [[ $funcstack[1] == _dk ]]; then
    _dk "$@"
else
    compdef _dk dk
fi
