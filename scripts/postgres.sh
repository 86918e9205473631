# A private PostgreSQL for tests, to be sourced: `postgres_start DIR` brings one up on a free loopback port and sets
# POSTGRES_URL; `postgres_stop` ends it by its pid. Nothing outside DIR is touched, no running server is used.

postgres_bin() {
  if command -v initdb >/dev/null 2>&1; then dirname "$(command -v initdb)"; return; fi
  local found
  found=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)
  [ -n "$found" ] || { echo "no initdb found: run scripts/setup.sh" >&2; return 1; }
  dirname "$found"
}

# initdb and postgres refuse to run as root
as_postgres() {
  if [ "$(id -u)" -ne 0 ]; then "$@"; return; fi
  local user=nobody
  id postgres >/dev/null 2>&1 && user=postgres
  runuser -u "$user" -- "$@"
}

# starts the server of POSTGRES_DATA on that port; durability is switched off: the cluster does not outlive the run
postgres_up() {
  local bin
  bin=$(postgres_bin) || return 1
  (cd "$POSTGRES_DATA" && as_postgres "$bin/pg_ctl" -D "$POSTGRES_DATA/db" -l "$POSTGRES_DATA/log" -w -t 60 -s -o "-p $1 -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=400 -c fsync=off -c synchronous_commit=off -c full_page_writes=off" start) >/dev/null 2>&1
}

postgres_start() {
  local dir=$1 bin port
  bin=$(postgres_bin) || return 1
  POSTGRES_DATA=$dir/pgdata
  mkdir -p "$POSTGRES_DATA"
  if [ "$(id -u)" -eq 0 ]; then
    chmod 711 "$dir"
    chown "$(id -u postgres 2>/dev/null || id -u nobody)" "$POSTGRES_DATA"
  fi
  chmod 700 "$POSTGRES_DATA"
  # trust is fine: loopback only, an account that lives as long as the run
  (cd "$POSTGRES_DATA" && as_postgres "$bin/initdb" -D "$POSTGRES_DATA/db" -U replay -A trust -E UTF8 --no-locale --no-sync) >"$dir/initdb.log" 2>&1 ||
    { cat "$dir/initdb.log" >&2; return 1; }
  local try
  for try in 1 2 3 4 5 6 7 8; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    if postgres_up "$port"; then
      POSTGRES_URL="postgres://replay@127.0.0.1:$port/postgres"
      return 0
    fi
  done
  echo "PostgreSQL did not start after $try tries:" >&2
  tail -n 20 "$POSTGRES_DATA/log" >&2
  return 1
}

postgres_stop() {
  local pid_file=${POSTGRES_DATA:-/nonexistent}/db/postmaster.pid pid
  [ -r "$pid_file" ] || return 0
  pid=$(head -n 1 "$pid_file")
  # INT: fast shutdown, open connections are closed
  kill -INT "$pid" 2>/dev/null || return 0
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -QUIT "$pid" 2>/dev/null || true
}
