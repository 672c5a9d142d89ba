"""Completion scripts that replace click's.

Bash splits words at ``:`` and ``=``, Zsh replaces a word with its options (``--driver=op``), shells add a space after
``/``, and Fish is asked to list files itself, since only it knows how it quotes their names.
"""

from __future__ import annotations

import os

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

__all__ = ["UrlBashComplete", "UrlFishComplete", "UrlZshComplete"]

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

#: Words up to the cursor's alone, so that an empty one can be told from the next; ``--name=`` is kept, which needs
#: matches without ``-U``.
_ZSH = (
    ZshComplete.source_template.replace('"${words[*]}"', '"${words[1,CURRENT]}"')
    .replace("    response=(", "    [[ $PREFIX == -*=* ]] && compset -P 1 '*='\n    response=(")
    .replace(
        "compadd -U -V unsorted -a completions",
        "compadd -V unsorted -S '' -- ${(M)completions:#*/}; compadd -V unsorted -- ${completions:#*/}",
    )
)

# Fish evaluates both `complete` lines for each Tab, in any order: the first asks, the second uses the answer up.
_FISH = """\
function %(complete_func)s_ask
    set -l line (pwd) (commandline -cp)
    if test "$line" = "$%(complete_func)s_line"
        set -e %(complete_func)s_line
        return
    end
    set -g %(complete_func)s_line $line
    set -lx COMP_WORDS (commandline -cp | string collect)
    set -lx COMP_CWORD (commandline -ct | string collect)
    set -g %(complete_func)s_answer (env %(complete_var)s=fish_complete %(prog_name)s)
end

function %(complete_func)s
    %(complete_func)s_ask
    set -l option (commandline -ct | string match -r -- '^-[^=]*=')
    for item in $%(complete_func)s_answer
        string match -q 'plain,*' -- $item
        and printf '%%s\\n' "$option"(string replace plain, '' -- $item)
    end
end

function %(complete_func)s_of_files
    %(complete_func)s_ask
    string match -q -r '^(file|dir),' -- $%(complete_func)s_answer
end

complete --command %(prog_name)s --no-files --arguments "(%(complete_func)s)"
complete --command %(prog_name)s --condition %(complete_func)s_of_files --force-files
"""


class UrlBashComplete(BashComplete):
    """Completion for Bash, which splits words at ``:`` and ``=`` (``COMP_WORDBREAKS``), so a URL is three words."""

    source_template = _BASH
    #: what of the completed word is not in the completions: ``--name=``
    _option = ""
    #: the part of the completed word that Bash keeps
    _kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the completed one, and the completed one, with URLs in one piece."""
        pieces = split_arg_string(os.environ["COMP_WORDS"])
        current = int(os.environ["COMP_CWORD"])
        words: list[str] = []
        glue = False
        for piece in pieces[: current + 1]:
            breaks = piece.strip(":=") == "" and piece != ""
            if words and (breaks or glue):
                words[-1] += piece
            else:
                words.append(piece)
            glue = breaks
        if current >= len(pieces):
            words.append("")
        *arguments, incomplete = words[1:] or [""]
        replaced = pieces[current] if current < len(pieces) and pieces[current].strip(":=") else ""
        self._kept = incomplete.removesuffix(replaced)
        self._option = _option_of(incomplete)
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return one line of output: the text that replaces Bash's last word."""
        return f"{item.type},{(self._option + str(item.value)).removeprefix(self._kept)}"


class UrlZshComplete(ZshComplete):
    """Completion for Zsh, without a space after a name that ends in ``/``."""

    source_template = _ZSH


class UrlFishComplete(FishComplete):
    """Completion for Fish, which lists files itself."""

    source_template = _FISH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the completed one, and the completed one."""
        _, *words = split_arg_string(os.environ["COMP_WORDS"].replace("\\\n", " ")) or [""]
        if not os.environ["COMP_CWORD"]:
            return words, ""
        *arguments, incomplete = words or [""]
        return arguments, incomplete


def _option_of(word: str) -> str:
    """Return ``--name=`` of a word that is an option with its value, of which click completes the value."""
    name, equals, _ = word.partition("=")
    return name + equals if equals and word.startswith("-") else ""


add_completion_class(UrlBashComplete)
add_completion_class(UrlFishComplete)
add_completion_class(UrlZshComplete)
