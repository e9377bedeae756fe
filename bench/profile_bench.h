// `switchyard profile`: measures what the simulator has to know of models on this machine.
//
// Prefills in the chunks in which a server computes them, decode steps over requests and context, and the
// rate at which an image is copied from memory to memory. On the caller's thread; seconds to minutes.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "simulate/profile_text.h"

namespace switchyard::bench {

struct ProfileCheckpoint {
  std::filesystem::path path;
  std::string name;
};

struct ProfileOptions {
  std::vector<ProfileCheckpoint> models;
  std::uint32_t threads = 0;                                       // 0: one per core
  std::vector<std::uint32_t> prompts = {16, 64, 256, 1024, 2048};  // tokens of prefills
  std::vector<std::uint32_t> rows = {1, 2, 4, 8, 16, 32};          // requests of decode steps
  std::vector<std::uint32_t> contexts = {64, 512, 1024};           // tokens of each of them
  std::uint32_t chunk = 256;                                       // tokens of a prefill's steps
  double seconds = 0.3;                                            // of each measurement, about
  double limit = 120;                               // seconds per model; what is left then is left out
  std::uint64_t kv_bytes = std::uint64_t{1} << 30;  // larger measurements are left out

  // Fewer and shorter measurements: some five seconds for a model of 100 MB.
  void make_quick();
};

struct MachineProfile {
  std::vector<simulate::ProfiledModel> models;
  // Memory for two images of the largest model and kv_bytes; the link is the rate of copies.
  simulate::Accelerator accelerator;
  std::vector<std::string> left_out;  // measurements, with the reason
};

// What to measure of one model: batch 0 stands for a prefill. In the order of measuring; the first two
// suffice for a profile. Points beyond the model's context or kv_tokens are told in `left_out`. Pure.
struct ProfilePoint {
  std::uint32_t tokens;
  std::uint32_t batch;

  friend bool operator==(const ProfilePoint&, const ProfilePoint&) = default;
};
std::vector<ProfilePoint> profile_points(const ProfileOptions& options, const std::string& name,
                                         std::uint32_t context, std::uint64_t kv_tokens,
                                         std::vector<std::string>& left_out);

// `progress(what, done, total)` before each measurement. Errors: those of opening a model and of the runtime;
// invalid.
using ProfileProgress = std::function<void(const std::string&, std::size_t, std::size_t)>;
Result<MachineProfile> measure_profile(const ProfileOptions& options, const ProfileProgress& progress);

}  // namespace switchyard::bench
