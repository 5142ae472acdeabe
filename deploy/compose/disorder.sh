#!/usr/bin/env bash
# Prints payments for kafka-console-producer to read, as HEADERS<tab>KEY<tab>VALUE. The
# header event-time says when the payment was made, in ms since 1970; the value says the
# same for people. One payment in four is up to 4 seconds old, one in a hundred a minute.
export LC_ALL=C TZ=UTC
for ((n = 1; ; n++)); do
	at=$((${EPOCHREALTIME/./} / 1000))
	case $((RANDOM % 100)) in
	0) ((at -= 60000)) ;;
	[1-9] | 1? | 2[0-4]) ((at -= RANDOM % 4000)) ;;
	esac
	printf 'event-time:%d\tcard-%d\t%(%T)T.%03d payment %d\n' \
		"$at" $((RANDOM % 5)) $((at / 1000)) $((at % 1000)) "$n"
	sleep 0.1
done
