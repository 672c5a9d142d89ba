"""Completion scripts where click's own do not fit: Bash cuts words at colons, and shells put a blank behind ``/``."""

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
    """Bash, whose words end at ``:`` (``COMP_WORDBREAKS``), so that a URL is three of them."""

    source_template = _BASH
    #: what is before the last colon of the word that is completed: Bash keeps it
    _before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is completed, and that, with URLs in one piece."""
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
        """Return a line of the answer: what Bash puts in the place of its own last word."""
        return f"{item.type},{str(item.value).removeprefix(self._before)}"


class UrlZshComplete(ZshComplete):
    """Zsh, without a blank behind a name that can go on."""

    source_template = ZshComplete.source_template.replace(
        "compadd -U -V unsorted -a completions",
        "compadd -U -V unsorted -S '' -- ${(M)completions:#*/}; compadd -U -V unsorted -- ${completions:#*/}",
    )


add_completion_class(UrlBashComplete)
add_completion_class(UrlZshComplete)
