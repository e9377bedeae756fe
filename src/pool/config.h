// What `switchyard serve` serves and with what, from a YAML file and the command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "pool/catalogue.h"
#include "schedule/policy.h"
#include "switchyard/result.h"

namespace switchyard::pool {

struct PoolConfig {
  std::vector<ModelSettings> models;
  std::uint32_t prefill = 1;  // instances of each role
  std::uint32_t decode = 1;
  std::uint32_t unified = 0;
  std::string fabric = "auto";
  std::uint32_t threads = 0;      // per instance; 0: one per core
  std::uint32_t berths = 2;       // per instance: models that can lie ready at the same time
  std::uint64_t berth_bytes = 0;  // 0: as large as the largest model
  std::uint64_t kv_bytes = std::uint64_t{1} << 30;  // KV memory per instance
  std::uint64_t host_kv_bytes = std::uint64_t{1}
                                << 30;  // where KV waits for its turn, shared by all; 0: none
  std::uint64_t cache_bytes =
      0;  // of model images in shared memory; 0: all of them, up to half the machine's
  schedule::PolicyKind policy = schedule::PolicyKind::slack;
  Nanos longest_quota = std::chrono::seconds(4);  // of a turn, with `quota`
  schedule::AdmissionOptions admission{.max_waiting = 1024};
  std::uint32_t max_queue = 4096;  // requests that are waiting or running
  bool control_tls = false;        // messages between processes are encrypted
  std::filesystem::path trace;     // JSON lines of what the instances did; empty: none
};

struct ServeConfig {
  PoolConfig pool;
  ModelSettings defaults;  // of models that do not say otherwise; without id and path
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::vector<std::string> api_keys;
  std::vector<std::string> admin_keys;
  bool watch = false;  // read the file again when it changes
};

// docs/http-api.md and the README list the keys. An unknown key, or one that stands twice, is an error that
// names it and its line. Paths are relative to the file. A model with an empty path is the default model;
// without any model, whoever asked chooses one. Errors: not_found, invalid.
Result<ServeConfig> load_config(const std::filesystem::path& file);

// The same, from text.
Result<ServeConfig> parse_config(const std::string& yaml, const std::filesystem::path& base = ".");

using switchyard::parse_bytes;

// Errors: invalid, naming what cannot be (no instances, decode without prefill, two models of one name, ...).
Status validate(const PoolConfig& config);

// The keys whose values differ and that take effect only at the next start; models are not among them.
std::vector<std::string> keys_for_restart(const ServeConfig& now, const ServeConfig& wanted);

}  // namespace switchyard::pool
