"""Completion scripts that replace click's: Bash splits words at colons, and shells add a space after ``/``."""

from __future__ import annotations

import os

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

__all__ = ["UrlBashComplete", "UrlZshComplete"]

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain)
                COMPREPLY+=("$value")
                [[ $value == */ ]] && compopt -o nospace
                ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" %(complete_var)s=bash_complete "$1")
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class UrlBashComplete(BashComplete):
    """Completion for Bash, which splits words at ``:`` (``COMP_WORDBREAKS``), so a URL is three words."""

    source_template = _BASH
    #: the part of the completed word up to its last colon, which Bash keeps
    _before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the completed one, and the completed one, with URLs in one piece."""
        pieces = split_arg_string(os.environ["COMP_WORDS"])
        current = int(os.environ["COMP_CWORD"])
        words: list[str] = []
        glue = False
        for piece in pieces[: current + 1]:
            colon = piece.strip(":") == "" and piece != ""
            if words and (colon or glue):
                words[-1] += piece
            else:
                words.append(piece)
            glue = colon
        if current >= len(pieces):
            words.append("")
        *arguments, incomplete = words[1:] or [""]
        cut = current < len(pieces) and pieces[current] != incomplete
        self._before = incomplete[: incomplete.rfind(":") + 1] if cut else ""
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return one line of output: the text that replaces Bash's last word."""
        return f"{item.type},{str(item.value).removeprefix(self._before)}"


class UrlZshComplete(ZshComplete):
    """Completion for Zsh, without a space after a name that ends in ``/``."""

    source_template = ZshComplete.source_template.replace(
        "compadd -U -V unsorted -a completions",
        "compadd -U -V unsorted -S '' -- ${(M)completions:#*/}; compadd -U -V unsorted -- ${completions:#*/}",
    )


add_completion_class(UrlBashComplete)
add_completion_class(UrlZshComplete)
