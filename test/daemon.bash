# Sourced by what runs inside of test/private: functions for a daemon of ./bin on
# the directories RUN and SCRATCH. The daemon ends with the namespaces.

CONFIG=$SCRATCH/config.toml
SOCKET=$RUN/cri-mini.sock
DAEMON_LOG=$SCRATCH/daemon.log

# write_config puts the configuration where the daemon will look for it.
write_config() {
    mkdir -p "$SCRATCH/state" "$SCRATCH/certs.d"
    cat >"$CONFIG" <<EOF
run_dir = "$RUN"
state_dir = "$SCRATCH/state"
socket = "$SOCKET"

[network]
mode = "builtin"

[registry]
config_dir = "$SCRATCH/certs.d"
EOF
}

# start_daemon returns when the daemon serves; its process is DAEMON.
start_daemon() {
    bin/cri-mini serve --config "$CONFIG" >"$DAEMON_LOG" 2>&1 &
    DAEMON=$!
    wait_for "the daemon" "$DAEMON" "$DAEMON_LOG" test -S "$SOCKET"
}

# wait_for NAME PID LOG COMMAND... waits until the command succeeds, at most 30 s.
wait_for() {
    local name=$1 process=$2 log=$3 try
    shift 3
    for try in {1..3000}; do
        if "$@"; then return; fi
        if ! kill -0 "$process" 2>/dev/null; then
            echo "$name ended; its log says:" >&2
            tail -20 "$log" >&2
            return 1
        fi
        sleep 0.01
    done
    echo "$name is not ready after 30 s; its log says:" >&2
    tail -20 "$log" >&2
    return 1
}

# stop_daemon asks the daemon to end and waits for it.
stop_daemon() {
    kill -TERM "$DAEMON" 2>/dev/null || true
    wait "$DAEMON" 2>/dev/null || true
}
