# What the samples share: their options, and the server that exports an image. Sourced, not run.
# Another server, or another command line of one of these, is a change in `start_server` only.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sample=$(basename "$(cd "$(dirname "$0")" && pwd)")
server=odiskd daemon_path='' tool_path='' install=false keep=false
work='' server_pid='' uri='' temporary=()

say() { printf '%s: %s\n' "$sample" "$*"; }
fail() { printf '%s: error: %s\n' "$sample" "$*" >&2; exit 1; }

usage() {
    cat <<USAGE
usage: run [--server odiskd|odisk|qemu-nbd] [--daemon PATH] [--tool PATH] [--install] [--keep]
  --server   what exports the image (default: odiskd)
  --daemon   the odiskd program or .dll (default: artifacts/publish/odiskd, else built from the sources)
  --tool     the odisk program or .dll (default: artifacts/publish/odisk, else built from the sources)
  --install  install missing Debian packages (apt-get, with sudo unless root) instead of naming them
  --keep     keep the working directory, and say where it is
USAGE
}

parse_options() {
    while (($#)); do
        case $1 in
            --server | --daemon | --tool) (($# >= 2)) || fail "$1 needs a value; see run --help" ;;&
            --server) server=$2; shift ;;
            --daemon) daemon_path=$2; shift ;;
            --tool) tool_path=$2; shift ;;
            --install) install=true ;;
            --keep) keep=true ;;
            -h | --help) usage; exit 0 ;;
            *) fail "unknown option '$1'; see run --help" ;;
        esac
        shift
    done
    case $server in
        odiskd | odisk | qemu-nbd) ;;
        *) fail "unknown server '$server': use odiskd, odisk or qemu-nbd" ;;
    esac
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# need_packages COMMAND=PACKAGE...: every command is there, or its Debian package is installed or named.
need_packages() {
    local pair missing=()
    PATH=$PATH:/usr/sbin:/sbin
    for pair; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]})) || return 0
    $install || fail "missing Debian packages: ${missing[*]} (apt-get install ${missing[*]}, or pass --install)"
    say "installing ${missing[*]}"
    as_root apt-get -qq update || fail "apt-get update failed"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null ||
        fail "apt-get could not install ${missing[*]}"
}

# find_program ARRAY NAME PATH PROJECT: the command line that runs odiskd or odisk.
find_program() {
    local -n command_line=$1
    local published=$repository/artifacts/publish/$2 path=$3
    if [[ -z $path && -f $published && -x $published ]]; then
        path=$published
    elif [[ -z $path ]]; then
        local project=$repository/src/$4
        command -v dotnet >/dev/null || fail "no $published and no dotnet to build it: publish $2, or name it"
        say "building $4"
        dotnet build "$project" -nodeReuse:false >"$work/build.log" || fail "$4 does not build"
        # The assembly itself and not `dotnet run`, so that a signal reaches it.
        path=$(dotnet msbuild "$project" -getProperty:TargetPath)
    fi
    [[ -f $path ]] || fail "$2 not found at '$path'"
    case $path in
        *.dll) command_line=(dotnet "$path") ;;
        *) command_line=("$path") ;;
    esac
}

# begin: the working directory, the programs, and the cleaning up at the end.
begin() {
    work=$(mktemp -d "/tmp/$sample.XXXXXX") # short: a unix socket's path has at most 107 bytes
    temporary+=("$work")
    trap end EXIT
    trap 'exit 130' INT TERM
    mkdir "$work/pool"
    case $server in
        odiskd) find_program daemon odiskd "$daemon_path" OrleansDisk.Server ;;&
        odiskd | odisk) find_program tool odisk "$tool_path" OrleansDisk.Cli ;;
        qemu-nbd) tool=(qemu-img) ;;
    esac
}

end() {
    local status=$? log
    set +e # whatever fails from here on, the rest of the cleaning up is still done
    [[ -z $server_pid ]] || { kill -KILL "$server_pid" && wait "$server_pid"; } 2>/dev/null
    if ((status)); then
        # The newest log tells what went wrong; the server's may tell why.
        for log in $(cd "$work" && ls -t -- *.log | grep -vx server.log | head -n 1) server.log; do
            [[ ! -s $work/$log ]] || printf -- '--- %s ends with\n%s\n' "$log" "$(tail -n 20 "$work/$log")" >&2
        done
    fi
    if $keep; then say "kept $work"; else rm -rf "${temporary[@]}"; fi
    exit "$status"
}

# create_image FILE SIZE
create_image() {
    "${tool[@]}" create -f qcow2 "$1" "$2" >"$work/create.log" 2>&1 || fail "${tool[*]} create failed"
}

# start_server IMAGE: exports a qcow2 file of $work/pool; `uri` is then what an NBD client opens.
start_server() {
    local image=$1 socket=$work/nbd.sock export='' command_line
    case $server in
        odiskd)
            export=vm/$(basename "$image" .qcow2)
            command_line=("${daemon[@]}" --pool "vm=$work/pool" --unix "$socket")
            ;;
        odisk) command_line=("${tool[@]}" nbd -k "$socket" -t -f qcow2 "$image") ;;
        qemu-nbd) command_line=(qemu-nbd -k "$socket" -t -f qcow2 "$image") ;;
    esac
    uri="nbd+unix:///$export?socket=$socket"
    "${command_line[@]}" </dev/null >>"$work/server.log" 2>&1 &
    server_pid=$!
    local deadline=$((SECONDS + 30))
    until answers "$socket"; do
        kill -0 "$server_pid" 2>/dev/null || fail "$server ended at once: ${command_line[*]}"
        ((SECONDS < deadline)) || fail "$server does not answer on $uri within 30 s"
        sleep 0.1
    done
}

# answers SOCKET: the export can be had; where no NBD client is installed, the server listens.
answers() {
    if command -v nbdinfo >/dev/null; then
        timeout 5 nbdinfo --size "$uri" >"$work/nbdinfo.log" 2>&1
    else
        [[ -S $1 ]]
    fi
}

# stop_server: SIGTERM lets the server write its metadata and let go of the image.
stop_server() {
    local pid=$server_pid status=0
    kill -TERM "$pid" 2>/dev/null || true # if it ended before, its status tells
    timeout 30 tail --pid="$pid" -f /dev/null || fail "$server is still running 30 s after SIGTERM"
    server_pid=''
    wait "$pid" || status=$?
    # 143: ended by the signal itself, which is how a program without a handler ends.
    ((status == 0 || status == 143)) || fail "$server ended with status $status"
    rm -f "$work/nbd.sock"
}

# client COMMAND...: one NBD client; a server that stops answering makes it fail, not hang.
client() { timeout --foreground --kill-after=10 60 "$@"; }

# check_image FILE: the file left behind is a clean qcow2 image, without even a leaked cluster.
check_image() {
    qemu-img check -f qcow2 "$1" >"$work/check.log" 2>&1 || fail "qemu-img check finds errors in ${1##*/}"
}
