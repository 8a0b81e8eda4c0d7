#!/usr/bin/env bash
# Two hosts in one machine: two network namespaces that see each other through a pair of virtual cables alone, and
# torchrun's rendezvous between them. Extracts features of built-in pictures and trains SCAN on them, with two processes
# a host and once with one process; the stores and the losses must be equal, and the cables must have carried gradients.
#
#   sudo benchmarks/two_hosts.sh [PYTHON]       needs Linux, iproute2 and the right to make network namespaces
set -euo pipefail

python=${1:-python}
repository=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
tag=va$$
first=10.77.0.1
second=10.77.0.2

finish() {
    ip netns del "$tag-a" 2>/dev/null || true
    ip netns del "$tag-b" 2>/dev/null || true
    rm -rf "$work" "/etc/netns/$tag-a" "/etc/netns/$tag-b"
}
trap finish EXIT

ip netns add "$tag-a"
ip netns add "$tag-b"
ip link add "$tag-a" netns "$tag-a" type veth peer name "$tag-b" netns "$tag-b"
for host in a b; do
    ip -n "$tag-$host" link set lo up
    ip -n "$tag-$host" link set "$tag-$host" up
    # `ip netns exec` shows these as /etc/hosts.
    mkdir -p "/etc/netns/$tag-$host"
    printf '127.0.0.1 localhost\n%s host-a\n%s host-b\n' "$first" "$second" >"/etc/netns/$tag-$host/hosts"
done
ip -n "$tag-a" address add "$first/24" dev "$tag-a"
ip -n "$tag-b" address add "$second/24" dev "$tag-b"

export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
# What a user types on each host.
training=(-m vl_alignment.cli train --preset blocks --sizes train=48 validation=12 test=12 --device cpu
    --alignment-function general_key --epochs 4 --batch-size 16 --extractor efficientnet_lite0)

host() {
    GLOO_SOCKET_IFNAME="$tag-$1" ip netns exec "$tag-$1" unshare --uts bash -c 'hostname "$0"; exec "$@"' "host-$1" \
        "$python" -m torch.distributed.run --nnodes 2 --nproc_per_node 2 --rdzv_backend c10d --rdzv_id two-hosts \
        --rdzv_endpoint host-a:29511 --no_python "$python" "${training[@]}" --regions "$work/store-two" \
        --output "$work/two"
}

cd "$repository"
echo "training on two hosts with two processes each, and in one process"
host a >"$work/a.log" 2>&1 &
leader=$!
"$python" "${training[@]}" --regions "$work/store-one" --output "$work/one" >"$work/one.log" 2>&1 &
alone=$!
host b >"$work/b.log" 2>&1 || { cat "$work/a.log" "$work/b.log"; exit 1; }
wait "$leader" || { cat "$work/a.log"; exit 1; }
carried=$(ip netns exec "$tag-b" cat "/sys/class/net/$tag-b/statistics/rx_bytes")
wait "$alone" || { cat "$work/one.log"; exit 1; }

diff -r "$work/store-one" "$work/store-two" && echo "equal stores"
"$python" - "$work" "$carried" <<'PROGRAM'
import json
import sys
from pathlib import Path

work, carried = Path(sys.argv[1]), int(sys.argv[2])
results, losses = {}, {}
for name in ("one", "two"):
    (path,) = (work / name).glob("*/results.json")
    results[name] = json.loads(path.read_text())["metrics"]
    rows = [json.loads(line) for line in (path.parent / "history.jsonl").read_text().splitlines()]
    losses[name] = [row["loss"] for row in rows if "loss" in row]
difference = max(abs(one / two - 1) for one, two in zip(losses["one"], losses["two"], strict=True))
print(f"losses of one process: {losses['one']}; largest relative difference: {difference:.1e}")
print(f"metrics of one process: {results['one']}")
print(f"metrics of two hosts:   {results['two']}")
print(f"bytes that the second host received: {carried:,}")
if difference > 1e-4 or carried < 1_000_000:
    sys.exit("the runs differ, or nothing went through the cable")
print("equal")
PROGRAM
