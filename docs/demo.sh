#!/bin/sh
# One event on its way: a server and a receiver are started, a webhook is made,
# an event is triggered, and the receiver shows the signed call. Everything that
# was started is stopped, and its data removed.
set -eu

binary=${BINARY:-bin/medilab-webhooks}
addr=${DEMO_ADDR:-127.0.0.1:18000}
receiver=${DEMO_RECEIVER:-127.0.0.1:19000}
secret=demo-webhook-secret
token=demo-$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
api=http://$addr/api/v1
data=$(mktemp -d)

server_pid= receiver_pid=
stop() {
	for pid in $server_pid $receiver_pid; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$data"
}
trap stop EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$1"; }

post() { # path, body
	curl -sS --fail-with-body -X POST "$api$1" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -d "$2"
}

await() { # what the file must hold, the file, a command that may fill it
	tries=0
	until grep -q "$1" "$2"; do
		tries=$((tries + 1))
		if [ "$tries" -gt 100 ]; then
			echo "nothing within ten seconds" >&2
			exit 1
		fi
		sleep 0.1
		$3
	done
	cat "$2"
}

list_calls() {
	curl -sS --fail-with-body "$api/webhooks/1/calls" -H "Authorization: Bearer $token" >"$data/log"
}

say "A receiver on $receiver, and the server on $addr with an empty log"
"$binary" receive --addr "$receiver" --secret "$secret" >"$data/calls" &
receiver_pid=$!
MEDILAB_DATA_DIR=$data/server MEDILAB_ADDR=$addr MEDILAB_TOKEN=$token MEDILAB_LOG=text,warn \
	MEDILAB_ALLOW_TARGETS=loopback DATABASE_URL= "$binary" serve >"$data/server.log" 2>&1 &
server_pid=$!
tries=0
until curl -sf -o /dev/null "http://$addr/readyz"; do
	tries=$((tries + 1))
	if [ "$tries" -gt 600 ] || ! kill -0 "$server_pid" 2>/dev/null; then
		cat "$data/server.log" >&2
		echo "the server did not start" >&2
		exit 1
	fi
	sleep 0.1
done

say "A webhook for new patients of cardiology"
post /webhooks/ '{"name":"Demo","url":"http://'"$receiver"'/patients","events":["patient.created"],"secret":"'"$secret"'","filters":{"department":"cardiology"}}'

say "An event that matches, and one that does not"
post /webhooks/events/trigger '{"event_type":"patient.created","event_data":{"patient_id":123,"name":"Иван Иванов","department":"cardiology"}}'
post /webhooks/events/trigger '{"event_type":"patient.created","event_data":{"patient_id":124,"name":"Пётр Петров","department":"surgery"}}'

say "What the receiver got"
await attempt "$data/calls" :

say "What the call log says"
list_calls
await call_id "$data/log" list_calls
