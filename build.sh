#!/usr/bin/env bash
# Everything that is built here, by one name. `./build.sh help` lists the verbs.
set -euo pipefail
cd "$(dirname "$0")"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1

# Programs that the tests run, and the Debian packages that have them.
test_programs=(
    qemu-img=qemu-utils qemu-io=qemu-utils qemu-nbd=qemu-utils qemu-system-x86_64=qemu-system-x86
    nbdinfo=libnbd-bin nbdcopy=libnbd-bin nbdfuse=libnbd-bin nbdkit=nbdkit fio=fio nbdsh=python3-libnbd
    mke2fs=e2fsprogs cpio=cpio fusermount3=fuse3 zsh=zsh fish=fish mandoc=mandoc 7zz=7zip
)
# The same for the benchmarks.
bench_programs=(
    fio=fio qemu-img=qemu-utils qemu-io=qemu-utils qemu-nbd=qemu-utils qemu-storage-daemon=qemu-system-common
    nbdkit=nbdkit nbdinfo=libnbd-bin nbdcopy=libnbd-bin mke2fs=e2fsprogs
)

usage() {
    cat <<'USAGE'
usage: ./build.sh VERB [OPTION...]
  demo              make an image, serve it from its grain over NBD, write it, read it back, check it
  test [--install]  build everything and run all tests; --install gets the Debian packages that the tests need
                    further options go to `dotnet test`, for example --filter Qcow2
  simulate [OPTION...]
                    crashes and faults on a simulated disk, seed after seed, until Ctrl-C; --seconds N, --from SEED, --seed SEED
  coverage [OPTION...]
                    branches of the engine that tests walk, by file; options go to `dotnet test`
  iotests [OPTION...]
                    QEMU's own tests of images, run on odisk; --mode io|img|all|nbd, names of tests; takes Debian's source package
  publish           release programs odisk and odiskd in artifacts/publish/
  bench [OPTION...] NBD servers side by side; also `bench memory` and `bench micro`; --help tells all options
USAGE
}

die() { echo "build.sh: $*" >&2; exit 1; }

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

need_packages() { # VERB INSTALL PROGRAM=PACKAGE...: installs what is missing when INSTALL is true
    local pair missing=()
    PATH=$PATH:/usr/sbin:/sbin
    for pair in "${@:3}"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [[ $1 != test ]] || /usr/bin/python3 -c 'import nbd' 2>/dev/null || missing+=(python3-libnbd)
    ((${#missing[@]})) || return 0
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    "$2" || die "'$1' needs Debian packages: apt-get install ${missing[*]} (or ./build.sh $1 --install)"
    echo "installing ${missing[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# One line of totals from what `dotnet test` said of each project.
print_totals() { # $1: its output
    awk '/^(Passed|Failed)! +- Failed:/ {
            for (i = 1; i < NF; i++) {
                if ($i == "Failed:") failed += $(i + 1)
                if ($i == "Passed:") passed += $(i + 1)
            }
        }
        END { printf "%d passed, %d failed\n", passed, failed }' "$1"
}

run_tests() {
    local install=false options=() log status=0
    for option; do
        if [[ $option == --install ]]; then install=true; else options+=("$option"); fi
    done
    need_packages test $install "${test_programs[@]}"
    eng/grain-runtime
    log=$(mktemp)
    # Everything runs on the embedded runtime, and what depends on the runtime on Orleans too, where that can be had.
    test_with Embedded OrleansDisk.sln "${options[@]}" 2>&1 | tee "$log" || status=$?
    if grep -q '>Orleans<' eng/GrainRuntime.props; then
        test_with Orleans tests/OrleansDisk.Grains.Tests "${options[@]}" 2>&1 | tee -a "$log" || status=$?
    fi
    print_totals "$log"
    rm -f "$log"
    return $status
}

test_with() { # RUNTIME PROJECT [OPTION...]: options go to `dotnet test`
    local properties=(-p:GrainRuntime="$1")
    [[ $1 == Embedded ]] || properties+=(-p:ArtifactsPath="$PWD/artifacts/${1,,}")
    echo "--- $2 on GrainRuntime=$1"
    dotnet build "$2" -v quiet "${properties[@]}" || return
    # One project at a time: each uses all cores, and the programs it starts want their share.
    dotnet test "$2" --no-build -m:1 "${properties[@]}" "${@:3}"
}

# Runs in place of this script, so that Ctrl-C and the exit status are its own.
simulate() {
    dotnet build tests/OrleansDisk.Simulation -c Release -v quiet
    exec dotnet artifacts/bin/OrleansDisk.Simulation/release/OrleansDisk.Simulation.dll "$@"
}

# Branch coverage of the engine by the tests that run it, worst file first. Of a line whose branches several projects walk, the
# most that one of them walks counts.
coverage() {
    local project
    rm -rf artifacts/coverage
    for project in Qcow2 Interop Simulation; do
        dotnet test "tests/OrleansDisk.$project.Tests" -c Release --results-directory artifacts/coverage \
            --collect "XPlat Code Coverage" "$@" -- \
            DataCollectionRunSettings.DataCollectors.DataCollector.Configuration.Include='[OrleansDisk.Qcow2]*'
    done
    awk -F'"' '/<class /        { for (i = 1; i < NF; i++) if ($i ~ /filename=$/) file = $(i + 1) }
        /condition-coverage=/ && file ~ /(Metadata|Data|Concurrency|Snapshots|Bitmaps)\// {
            for (i = 1; i < NF; i++) {
                if ($i ~ /number=$/) line = $(i + 1)
                if ($i ~ /condition-coverage=$/) { split($(i + 1), part, /[(\/)]/) }
            }
            key = file ":" line
            files[key] = file; numbers[key] = line; all[key] = part[3]
            if (part[2] > taken[key]) taken[key] = part[2]
        }
        END {
            for (key in files) {
                file = files[key]; took[file] += taken[key]; has[file] += all[key]
                if (taken[key] < all[key]) lines[file] = lines[file] " " numbers[key]
            }
            for (f in has) printf "%5.1f %% of %4d branches  %s%s\n", 100 * took[f] / has[f], has[f], f, lines[f] ? "  not all:" lines[f] : ""
        }' artifacts/coverage/*/coverage.cobertura.xml | sort -n
}

publish() {
    local identifier out=artifacts/publish
    identifier=linux-$(case $(uname -m) in aarch64) echo arm64 ;; *) echo x64 ;; esac)
    rm -rf "$out"
    # NativeAOT: the net9.0 compiler restores on feeds that lack that of net10.0, and any C compiler can link.
    dotnet publish src/OrleansDisk.Cli -c Release -r "$identifier" -p:OdiskTargetFramework=net9.0 \
        -p:PublishAot=true -p:CppCompilerAndLinker="${CC:-gcc}" -o "$out" -v quiet
    dotnet publish src/OrleansDisk.Server -c Release -r "$identifier" --no-self-contained \
        -p:PublishSingleFile=true -o "$out" -v quiet
    rm -f "$out"/*.dbg "$out"/*.pdb "$out"/*.xml
    "$out/odisk" man >"$out/odisk.1"
    for shell in bash zsh fish; do "$out/odisk" completion $shell >"$out/odisk.$shell"; done
    ls -l "$out"
}

run_bench() {
    local install=false published=false project=OrleansDisk.Bench option options=() log program=bench
    for option; do
        case $option in
            --install) install=true ;;
            --no-publish) published=true ;;
            micro) project=OrleansDisk.MicroBenchmarks program=micro published=true ;;
            *) options+=("$option") ;;
        esac
    done
    [[ " ${options[*]} " =~ " --help "|" -h "|" --list " ]] && published=true
    need_packages bench $install "${bench_programs[@]}"
    $published || publish >&2
    log=$(dotnet build "bench/$project" -c Release -v quiet) || die "$log"
    exec "artifacts/bin/$project/release/$program" "${options[@]}"
}

case ${1:-help} in
    demo) exec samples/first-light/run ;;
    test) shift; run_tests "$@" ;;
    simulate) shift; simulate "$@" ;;
    coverage) shift; coverage "$@" ;;
    iotests) shift; publish >&2; exec tests/qemu-iotests/run "$@" ;;
    publish) publish ;;
    bench) shift; run_bench "$@" ;;
    help | -h | --help) usage ;;
    *) usage >&2; exit 64 ;;
esac
