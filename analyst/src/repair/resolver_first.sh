file=/etc/resolv.conf
# Puts the wanted resolver before all others and leaves every other line as it is.

set -f
tab=$(printf '\t')
cr=$(printf '\r')
nl='
'

# Sets $address to what a nameserver line names; empty for every other line. As resolv.conf(5) has it: the keyword
# starts the line, blanks follow, a comment may end it.
address_of() {
    address=
    case $1 in
    "nameserver "* | "nameserver$tab"*)
        set -- $1
        address=${2:-}
        address=${address%%[#;]*}
        address=${address%"$cr"}
        ;;
    esac
}

if [ ! -f "$file" ] || [ ! -r "$file" ]; then
    echo "$file is no readable regular file: nothing changed" >&2
    exit 3
fi

# Is it still as it was found?
first=
named=no
line_of_wanted="nameserver $wanted"
known=no
while IFS= read -r line || [ -n "$line" ]; do
    address_of "$line"
    [ -n "$address" ] || continue
    [ -n "$first" ] || first=$address
    if [ "$address" = "$unwanted" ]; then
        named=yes
    fi
    if [ "$address" = "$wanted" ] && [ "$known" = no ]; then
        known=yes
        line_of_wanted=$line
    fi
done <"$file"
if [ "$named" = no ]; then
    echo "$file does not name the resolver in question: nothing changed" >&2
    exit 3
fi
if [ "$first" = "$wanted" ]; then
    echo "$file has the better resolver first already: nothing changed" >&2
    exit 3
fi

# The wanted line goes where the first nameserver line stood; its other places vanish.
content=
placed=no
while
    end=$nl
    IFS= read -r line || { end=; [ -n "$line" ]; }
do
    address_of "$line"
    if [ -n "$address" ] && [ "$placed" = no ]; then
        placed=yes
        content=$content$line_of_wanted$nl
    fi
    [ "$address" != "$wanted" ] || continue
    content=$content$line$end
done <"$file"
printf '%s' "$content" | change file write "$file"
