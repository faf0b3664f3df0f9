#!/usr/bin/env bash
# A producer in bash: redis-cli, printf, od, and docs/protocol.md. No other language, no msgpack library.
#
#   producer.sh BROKER_URL POOL          BROKER_URL: redis://... or unix:///path/to/redis.sock
#
# REDIS_CLI names the redis-cli to use. Sends good and bad requests; prints a line for each: what was asked, then
# the output's shape and values, or the error's code, whether it is retryable, and its message.
set -euo pipefail
export LC_ALL=C # so that ${#text} counts bytes

broker=$1
prefix="iw:{$2}:"
inbox="${prefix}inbox:shell-$$"
reply=$(mktemp)
trap 'rm -f "$reply"' EXIT

redis() {
  case $broker in
    unix://*) "${REDIS_CLI:-redis-cli}" -s "${broker#unix://}" "$@" ;;
    *) "${REDIS_CLI:-redis-cli}" -u "$broker" "$@" ;;
  esac
}

# --- msgpack out: one function for each type that a request needs -----------------------------------------------
byte() { printf "\\x$(printf %02x "$1")"; }
map() { byte $((0x80 + $1)); }
list() { byte $((0x90 + $1)); }
uint() { byte 0xcd; byte $(($1 >> 8)); byte $(($1 & 255)); }
str() { byte 0xd9; byte ${#1}; printf %s "$1"; }
bin() { byte 0xc4; byte $((${#1} / 2)); printf "$(sed 's/../\\x&/g' <<<"$1")"; } # takes hexadecimal digits

floats() { # shape, then the values' bytes as hexadecimal digits, little-endian
  map 3; str dtype; str FP32; str shape; list 1; uint "$1"; str data; bin "$2"
}
text() {
  map 3; str dtype; str BYTES; str shape; list 0; str data; list 1; str "$1"
}

# request MODEL INPUT ID: the five fields that every request here has; the input's tensor comes from standard input
request() {
  map "${fields:-5}"
  str v; uint "${version:-1}"
  str id; str "$3"
  str model; str "$1"
  str reply_to; str "${reply_to:-$inbox}"
  str inputs; map 1; str "$2"; cat
}

# --- msgpack in: a reply as hexadecimal digits; a field is found by its name and read by its type ----------------
hex() { od -An -v -tx1 "$@" | tr -d ' \n'; }
name_in_hex() { byte $((0xa0 + ${#1})) | hex; printf %s "$1" | hex; }
after() { local whole=$1 name; name=$(name_in_hex "$2"); [[ $whole == *"$name"* ]] && printf %s "${whole#*"$name"}"; }
raw() { printf "$(sed 's/../\\x&/g' <<<"$1")"; }

value() { # the string, byte string, boolean or small integer at the start of the digits
  local rest=$1 head=$((16#${1:0:2}))
  case ${rest:0:2} in
    c2) echo false ;;
    c3) echo true ;;
    c4 | d9) raw "${rest:4:$((2 * 16#${rest:2:2}))}" ;;
    da) raw "${rest:6:$((2 * 16#${rest:2:4}))}" ;;
    *) if ((head >= 0xa0 && head < 0xc0)); then raw "${rest:2:$((2 * (head - 0xa0)))}"; else echo "$head"; fi ;;
  esac
}

show() { # case name; the reply is in the file
  local digits error data dtype shape
  digits=$(hex "$reply")
  if error=$(after "$digits" error); then
    echo "$1: $(value "$(after "$error" code)") retryable=$(value "$(after "$error" retryable)")" \
      "$(value "$(after "$error" message)")"
    return
  fi
  data=$(after "$digits" outputs)
  dtype=$(value "$(after "$data" dtype)")
  shape=$(after "$data" shape)
  data=$(after "$data" data)
  if [[ $dtype == FP32 ]]; then
    echo "$1: FP32[$(value "${shape:2}")] $(value "$data" | od -An -v -w64 -t f4 | xargs)"
  else
    echo "$1: $dtype[] $(value "${data:2}")"
  fi
}

# --- the round trip ---------------------------------------------------------------------------------------------
submit() { # the request comes from standard input: redis-cli -x makes it the last argument, byte for byte
  [[ -n $(redis -x XADD "${prefix}${priority:-normal}" NOMKSTREAM '*' d) ]] || { echo "no such pool" >&2; exit 1; }
}
receive() { # BLPOP prints the list's name, a newline, the value, a newline
  redis BLPOP "$inbox" 20 | tail -n +2 | head -c -1 >"$reply"
}
ask() { submit; receive; }
poll() { # a producer without an inbox looks for the reply key
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    redis GET "${prefix}reply:$1" | head -c -1 >"$reply"
    [[ -s $reply ]] && return
    sleep 0.1
  done
  echo "no reply to $1" >&2
  exit 1
}

one_and_minus_two=0000803f000000c0 # 1.0 and -2.0

floats 2 $one_and_minus_two | request double x shell-1 | ask
show "numbers"
floats 2 $one_and_minus_two | request embed-v2 vector shell-2 | ask
show "embedding"
text "Größe" | request shout text shell-3 | ask
show "text"
floats 2 $one_and_minus_two | request double x shell-4 | priority=high ask
show "urgent"

floats 3 $one_and_minus_two | request double x shell-5 | ask
show "wrong byte count"
floats 2 $one_and_minus_two | version=2 request double x shell-6 | ask
show "wrong version of the protocol"
floats 2 $one_and_minus_two | request nobody x shell-7 | ask
show "unknown model"
{ floats 2 $one_and_minus_two | fields=6 request double x shell-8; str colour; str red; } | ask
show "unknown field"
floats 2 $one_and_minus_two | reply_to=somebody-elses-list request double x shell-9 | submit
poll shell-9
show "bad reply_to"
