#!/usr/bin/env python3
"""Breaks the transfer engine on purpose, in one place at a time, and tells whether the random test notices.

Usage: tests/sim/mutations.py [--build build/release] [--seeds 3000] [NAME...]

Each mutation is compiled into a copy of its source file beside the libraries of an existing build
(target switchyard_sim); the tree is not touched. Exit status 0 when every mutation was noticed.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRANSFER = "src/transfer/"

# name, file, text, replacement
MUTATIONS = [
    ("the record goes out while data is under way", "engine_schedule.cc",
     "(slot.outstanding == 0 || (batch.capabilities.ordered && nothing_elsewhere));", "true;"),
    ("the last write announces on rails without order", "engine_schedule.cc",
     "const bool rides = batch.capabilities.ordered && nothing_elsewhere", "const bool rides = nothing_elsewhere"),
    ("the record goes beside data that is sent again", "engine_schedule.cc",
     "slot.outstanding == 0 && !slot.number;", "slot.outstanding == 0;"),
    ("a repeated immediate is counted again", "arrival_log.cc",
     "if (seen.counted) return Outcome::repeated;", ""),
    ("what was counted is sent again", "engine_paths.cc",
     "const bool arrived = slot.number &&", "const bool arrived = false && slot.number &&"),
    ("a path is settled before the other side has gone", "engine_paths.cc",
     "  say(peer, path, PathRecord::Kind::close, {}, why);\n",
     "  say(peer, path, PathRecord::Kind::close, {}, why);\n  settle_path(index, path_index, {});\n"),
    ("a path is settled by counts of before", "engine_paths.cc",
     "        path.said_closed = true;\n", "        path.said_closed = true;\n        settle_path(index, path_index, record.counted);\n"),
    ("failover loses a write", "engine_paths.cc",
     "const bool again = !slot.ended && !arrived &&", "const bool again = !slot.ended && !arrived && request.run.bytes % 5 != 3 &&"),
    ("failover forgets the announcement", "engine_paths.cc", "if (!arrived) slot.arrival_posted = false;", ""),
    ("drained is reported with Done", "engine_core.cc",
     "  if (slot.outstanding == 0) release(index);\n}\n\n// A group",
     "  {\n    std::lock_guard lock(mutex_);\n    for (auto& drained : slot.drained) due_.push_back({.plain = std::move(drained)});\n"
     "    slot.drained.clear();\n  }\n  if (slot.outstanding == 0) release(index);\n}\n\n// A group"),
    ("Done comes before the last delivery", "engine_complete.cc",
     "if (slot.outstanding != 0) return;", "if (slot.outstanding > 1) return;"),
    ("numbers are never used again", "engine_core.cc",
     "peers_[slot.peer].numbers.end(*slot.number, slot.arrival_posted);", "{}"),
    ("a stalled path is never given up", "engine_paths.cc",
     "if (now_ - path.last_progress >= options_.stall_limit) {", "if (false) {"),
    ("a lost peer keeps its ends", "engine_peers.cc", "  for (Path& path : peer.paths) remove_end(peer, path);\n",
     "  for (Path& path : peer.paths) {\n    path.has_end = false;\n    remove_end(peer, path);\n  }\n"),
    ("a path never comes back", "engine_paths.cc",
     "path.retry_at = now_ + path.rest;", "path.retry_at = TimePoint::max();"),
    ("a path is up without proof", "engine_paths.cc",
     "  const std::uint32_t probe = take_request(true);\n",
     "  if (!peer.local && opens_paths(peer)) say(peer, path, PathRecord::Kind::ready);\n  return path_is_up(index, path);\n"
     "  const std::uint32_t probe = take_request(true);\n"),
    ("pairs that were not planned are never tried at first", "engine_paths.cc",
     "(peer.ever_up || !planned_left)", "peer.ever_up"),
    ("deadlines of transfers are not kept", "engine_core.cc",
     'end(id, fail(ErrorCode::timed_out, "the transfer was not complete at its deadline"));', "continue;"),
    ("a transfer outlives its peer", "engine_peers.cc", "    end(i, pass(error));\n  }\n  for", "  }\n  for"),
    ("pages land at the wrong place", "write_plan.cc", "plan.target_stride_ = write.target_stride;",
     "plan.target_stride_ = write.source_stride;"),
]

MAIN = """
#include "base/log.h"
#include "sim/simtest.h"
#include <cstdio>
#include <cstdlib>
int main(int, char** argv) {
  spdlog::set_level(spdlog::level::off);
  for (std::uint64_t seed = 1; seed <= std::strtoull(argv[1], nullptr, 10); ++seed) {
    const auto result = switchyard::sim::run_simtest(seed, 0);
    if (!result.violation) continue;
    std::printf("%llu\\t%s\\n", static_cast<unsigned long long>(seed), result.violation->c_str());
    return 1;
  }
  return 0;
}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--seeds", default="3000")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    build = ROOT / arguments.build
    libraries = [build / f"src/{name}/libswitchyard_{name}.a" for name in ("sim", "transfer", "fabric", "memory", "base")]
    compiler = ["c++", "-std=c++20", "-O1", f"-I{ROOT}/include", f"-I{ROOT}/src", "-DSPDLOG_FMT_EXTERNAL",
                "-DSPDLOG_COMPILED_LIB", "-DSPDLOG_SHARED_LIB"]
    links = ["-lfmt", "-lspdlog", "-lssl", "-lcrypto", "-lfabric", "-libverbs", "-lpthread"]
    unnoticed = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        (scratch / "main.cc").write_text(MAIN)
        subprocess.run([*compiler, "-c", scratch / "main.cc", "-o", scratch / "main.o"], check=True)
        for name, file, old, new in [("nothing", None, None, None), *MUTATIONS]:
            if arguments.names and name not in arguments.names:
                continue
            objects = [scratch / "main.o"]
            if file:
                text = (ROOT / TRANSFER / file).read_text()
                if text.count(old) != 1:
                    print(f"{name:52} does not apply: the text occurs {text.count(old)} times in {file}")
                    unnoticed += 1
                    continue
                (scratch / file).write_text(text.replace(old, new))
                objects.append(scratch / "mutated.o")
                if subprocess.run([*compiler, "-c", scratch / file, "-o", objects[-1]]).returncode != 0:
                    unnoticed += 1
                    continue
            subprocess.run(["c++", "-o", scratch / "run", *objects, *libraries, *links], check=True)
            try:
                run = subprocess.run([scratch / "run", arguments.seeds], capture_output=True, text=True, timeout=300)
                found = (run.stdout.strip() or "crashed") if run.returncode != 0 else ""
            except subprocess.TimeoutExpired:
                found = "hangs"
            expected = bool(file) == bool(found)
            unnoticed += not expected
            print(f"{name:52} {'seed ' + found[:150] if found else 'not noticed'}", flush=True)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
