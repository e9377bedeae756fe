// `switchyard bench transfer`: what the transfer engine reaches between two processes, fabric by fabric,
// beside the bare rails and beside libfabric, measured in turns. The other process is a child, or one that
// was started on another host with --serve.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "switchyard/result.h"
#include "transfer_report.h"

namespace switchyard::bench {

struct TransferBenchOptions {
  // Each is what EngineOptions::fabric takes, "net,net" for two rails; empty: every fabric that works here.
  std::vector<std::string> fabrics;
  std::vector<std::uint64_t> sizes = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20};  // of writes
  std::vector<std::uint32_t> depths = {1, 16};                       // writes under way
  std::vector<std::uint64_t> pages = {4 << 10, 16 << 10, 64 << 10};  // bytes of a page
  std::uint64_t span = 0;  // memory that the writes move through; 0: each under way has its own
  double seconds = 0.1;    // of one measurement, about
  std::uint32_t repeats = 5;
  bool writes_only = false;
  std::string peer;            // HOST:PORT of `--serve`; empty: a child process
  std::filesystem::path json;  // written there
  std::filesystem::path plot;  // as an SVG picture
  bool quiet = false;          // no table, no progress
};

// Errors: the engine's, io.
Result<TransferReport> measure_transfers(const TransferBenchOptions& options);

// Measures, prints the table, writes the files.
Status run_transfer_bench(const TransferBenchOptions& options);

// The other side: answers one benchmark at HOST:PORT, then ends. Prints the port.
Status serve_transfer_bench_at(const std::string& where);

}  // namespace switchyard::bench
