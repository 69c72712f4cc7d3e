#!/bin/sh
# Buys a book with curl alone:  examples/buy.sh 978-0134685991 29.99
#
#   BOOKMESH_URL            where the REST API is; http://127.0.0.1:8080
#   BOOKMESH_TOKEN          your bearer token, such as the one of `bookmesh token`
#   BOOKMESH_PAYMENT_TOKEN  the payment provider's token for your card; one of the sandbox's

set -eu

book=${1:?usage: buy.sh ISBN MAX_PRICE}
max_price=${2:?usage: buy.sh ISBN MAX_PRICE}
url=${BOOKMESH_URL:-http://127.0.0.1:8080}
: "${BOOKMESH_TOKEN:?is not set: BOOKMESH_TOKEN=\$(.venv/bin/bookmesh token)}"

# Headers on stdin: the arguments of a program are seen by everybody on the machine.
call() {
  printf 'Authorization: Bearer %s\n' "$BOOKMESH_TOKEN" |
    curl --silent --show-error --fail-with-body --header @- "$@"
}

# The same key never buys twice, so this may be tried again until there is an answer.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
body=$(mktemp)
trap 'rm -f "$body"' EXIT
printf '{"book_id": "%s", "max_price": %s, "payment_token": "%s"}' \
  "$book" "$max_price" "${BOOKMESH_PAYMENT_TOKEN:-tok_abc123}" >"$body"
accepted=$(call --retry 5 --retry-connrefused --header "Idempotency-Key: $key" \
  --header 'Content-Type: application/json' --data "@$body" "$url/api/v1/purchase-requests") || {
  echo "$accepted" >&2
  exit 1
}

# Everything that happens, a line of JSON for each event; it ends with the result.
status_url=$(printf '%s' "$accepted" | sed 's/.*"status_url":"\([^"]*\)".*/\1/')
call --no-buffer "$url$status_url:watch"
call "$url$status_url"
echo
