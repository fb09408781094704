#!/usr/bin/env bash
# PyTorch's "Neural Networks" tutorial on a gradd daemon, with curl and jq. After ">>>" stands the line of
# Python, below it what the daemon answers. Checks its own results; exit status 1 if one is wrong.
#
#     gradd & tutorial.sh                  # the daemon of $GRADD_SERVER, or on 127.0.0.1:7117
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
server=${GRADD_SERVER:-http://127.0.0.1:7117}
model=$server/v1/models/tutorial
work=$(mktemp -d)
created=
trap '[ -z "$created" ] || call DELETE "$model" || true; rm -rf "$work"' EXIT

# ---- small things ------------------------------------------------------------------------------------------

python() { printf '\n>>> %s\n' "$1" && [ $# = 1 ] || printf '... %s\n' "${@:2}"; }
wrong() {
    echo "WRONG: $1"
    exit 1
}
# check CONDITION WHAT: does the condition hold for the last reply?
check() { jq -e "$1" "$work/reply" >/dev/null || wrong "$2"; }
# A call that must succeed: call METHOD URL [BODY-FILE]
call() {
    local body=()
    [ $# -lt 3 ] || body=(-H 'Content-Type: application/json' --data-binary "@$3")
    : >"$work/answer"
    if ! curl -sS --fail-with-body -X "$1" "${auth[@]}" "${body[@]}" -o "$work/answer" "$2"; then
        cat "$work/answer" >&2
        return 1
    fi
    cat "$work/answer" && echo
}
auth=()
[ -z "${GRADD_TOKEN_FILE:-}" ] || auth=(-H "Authorization: Bearer $(head -n1 "$GRADD_TOKEN_FILE")")
echo '{}' >"$work/empty"

# Stands in for torch.randn: mean 0, variance 1, uniform, the same on every run (Park and Miller's
# generator). random SEED COUNT
random() {
    jq -nc --argjson seed "$1" --argjson count "$2" '
        [limit($count; $seed * 16807 % 2147483647 | recurse(. * 16807 % 2147483647))
         | (. / 2147483647 - 0.5) * 3.4641016151377544]'
}
# An array to one of the shape (1, 1, N, N).
as_picture() { jq -c --argjson n "$1" '[[[range(0; $n) as $y | .[$y * $n : ($y + 1) * $n]]]]'; }
# The largest absolute value of the tensor in a reply.
largest() { jq '[.data | flatten[] | fabs] | max'; }
# All parameters as one object {name: tensor}.
parameters() {
    for name in "${names[@]}"; do
        call GET "$model/parameters/$name" | jq -c --arg name "$name" '{($name): .}'
    done | jq -sc add
}

random 1 1024 | as_picture 32 | jq -c '{input: .}' >"$work/input"
random 2 10 | jq -c '{target: [.]}' >"$work/target"
random 3 10 | jq -c '{gradient: [.]}' >"$work/gradient"

# ---- define the network ------------------------------------------------------------------------------------

python 'net = Net(); print(net)'
jq '.name = "tutorial" | .loss = {type: "MSELoss"} | .optimizer = {type: "SGD", lr: 0.01}' \
    "$here/lenet.json" >"$work/model"
call POST "$server/v1/models" "$work/model" >"$work/reply"
created=yes
jq -r .repr "$work/reply"
[ "$(jq -r .repr "$work/reply")" = "Net(
  (conv1): Conv2d(1, 6, kernel_size=(3, 3), stride=(1, 1))
  (conv2): Conv2d(6, 16, kernel_size=(3, 3), stride=(1, 1))
  (fc1): Linear(in_features=576, out_features=120, bias=True)
  (fc2): Linear(in_features=120, out_features=84, bias=True)
  (fc3): Linear(in_features=84, out_features=10, bias=True)
)" ] || wrong 'print(net) looks different in PyTorch'

python 'params = list(net.parameters()); print(len(params)); print(params[0].size())'
call GET "$model/parameters" >"$work/reply"
jq -r '(.items | length), "torch.Size(\(.items[0].shape))"' "$work/reply"
check '(.items | length) == 10' 'there are 10 parameters'
check '.items[0].shape == [6, 1, 3, 3]' 'conv1.weight is [6, 1, 3, 3]'
mapfile -t names < <(jq -r '.items[].name' "$work/reply")

# ---- forward, and backward from a gradient of the output ---------------------------------------------------

python 'input = torch.randn(1, 1, 32, 32); out = net(input); print(out)'
call POST "$model/forward" "$work/input" >"$work/reply"
jq -c '.output.data, .grad_fn' "$work/reply"
check '.output.shape == [1, 10]' 'out is [1, 10]'

python 'net.zero_grad(); out.backward(torch.randn(1, 10))'
call POST "$model/zero_grad" "$work/empty" >/dev/null
call POST "$model/backward" "$work/gradient" | tee "$work/reply"
check '.grad_norm > 0' 'there are gradients'

# ---- a loss, and its graph ---------------------------------------------------------------------------------

python 'output = net(input); target = torch.randn(10).view(1, -1); loss = nn.MSELoss()(output, target)' \
    'print(loss); print(loss.grad_fn)'
call POST "$model/forward" "$work/input" >/dev/null
call POST "$model/loss" "$work/target" >"$work/reply"
jq -r '"tensor(\(.loss), grad_fn=<\(.grad_fn)>)"' "$work/reply"
check '.loss > 0 and .grad_fn == "MseLossBackward0"' 'the loss is a positive MSELoss'

python 'node = loss.grad_fn' 'while node: print(node); node = node.next_functions[0][0]  # and so on'
# From each node to the next that is no parameter's (AccumulateGrad, or the transposed weight of a Linear).
call GET "$model/graph" | jq -r '
    .nodes as $nodes
    | ($nodes | map({key: (.id | tostring), value: .}) | from_entries) as $by_id
    | $nodes[0]
    | recurse([.next[] | select(. != null) | $by_id[tostring]
               | select(.name != "AccumulateGrad" and .name != "TBackward0")] | .[0] // empty)
    | .name' >"$work/walk"
sed 's/.*/<&>/' "$work/walk"
diff - "$work/walk" <<'END' || wrong 'PyTorch walks another way'
MseLossBackward0
AddmmBackward0
ReluBackward0
AddmmBackward0
ReluBackward0
AddmmBackward0
ReshapeAliasBackward0
MaxPool2DWithIndicesBackward0
ReluBackward0
ConvolutionBackward0
MaxPool2DWithIndicesBackward0
ReluBackward0
ConvolutionBackward0
END

# ---- backprop ----------------------------------------------------------------------------------------------

python 'net.zero_grad(); print(net.conv1.bias.grad)  # before backward'
call POST "$model/zero_grad" "$work/empty" >/dev/null
call GET "$model/parameters/conv1.bias/grad" >"$work/reply"
jq -c .data "$work/reply"
[ "$(largest <"$work/reply")" = 0 ] || wrong 'gradients are zero after zero_grad'

python 'loss.backward(); print(net.conv1.bias.grad)  # after backward'
call POST "$model/backward" "$work/empty" >/dev/null
call GET "$model/parameters/conv1.bias/grad" >"$work/reply"
jq -c .data "$work/reply"
[ "$(largest <"$work/reply")" != 0 ] || wrong 'gradients are not zero after backward'

# ---- update the weights, by hand and by an optimizer -------------------------------------------------------

python 'for f in net.parameters(): f.data.sub_(f.grad.data * learning_rate)'
parameters >"$work/start"
for name in "${names[@]}"; do
    call GET "$model/parameters/$name/grad" >"$work/grad"
    jq -c --arg name "$name" --slurpfile start "$work/start" '
        ($start[0][$name]) as $weight
        | {dtype: "float32", shape: .shape,
           data: [[$weight.data | flatten[]], [.data | flatten[]]] | transpose | map(.[0] - 0.01 * .[1])}' \
        "$work/grad" >"$work/weight"
    call PUT "$model/parameters/$name" "$work/weight" >/dev/null
done
parameters >"$work/by_hand"
echo "${#names[@]} parameters changed"
! cmp -s "$work/start" "$work/by_hand" || wrong 'the update changes the weights'

python 'optimizer = optim.SGD(net.parameters(), lr=0.01); optimizer.step()  # from the same weights'
for name in "${names[@]}"; do
    jq -c --arg name "$name" '.[$name]' "$work/start" >"$work/weight"
    call PUT "$model/parameters/$name" "$work/weight" >/dev/null
done
call POST "$model/step" "$work/empty"
parameters >"$work/by_optimizer"
jq -en --slurpfile a "$work/by_hand" --slurpfile b "$work/by_optimizer" '
    [$a, $b] | map([.[0][].data | flatten[]]) | transpose | all(.[0] - .[1] | fabs <= 1e-6)' \
    >/dev/null || wrong 'the optimizer does what was done by hand'

# ---- the training loop, and a mistake ----------------------------------------------------------------------

python 'optimizer.zero_grad(); loss = criterion(net(input), target); loss.backward(); optimizer.step()  # twice'
jq -sc add "$work/input" "$work/target" >"$work/batch"
first=$(call POST "$model/train_step" "$work/batch" | jq .loss)
echo "$first"
call POST "$model/train_step" "$work/batch" | tee "$work/reply" | jq .loss
check ".loss < $first" 'the loss falls'

python 'net(torch.randn(1, 1, 28, 28))  # the network was defined for 32 x 32'
random 1 784 | as_picture 28 | jq -c '{input: .}' >"$work/small"
! call POST "$model/forward" "$work/small" 2>/dev/null || wrong 'a wrong shape is refused'
jq . "$work/answer" | tee "$work/reply"
check '.code == "shape_mismatch"' 'the problem is shape_mismatch'

call DELETE "$model"
created=
echo
echo 'All results are as they should be.'
