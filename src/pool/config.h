// What `switchyard serve` serves and with what, from a YAML file and the command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

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
  schedule::AdmissionOptions admission{.max_waiting = 1024};
  std::uint32_t max_queue = 4096;  // requests that are waiting or running
  bool control_tls = false;        // messages between processes are encrypted
  std::filesystem::path trace;     // JSON lines of what the instances did; empty: none
};

struct ServeConfig {
  PoolConfig pool;
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::vector<std::string> api_keys;
};

// Keys: model, served_name, instances {prefill, decode, unified}, fabric, threads, kv_memory ("512MiB"),
// max_queue, control_tls, listen {host, port}, api_keys. An unknown key is an error that names it and its
// line. Paths are relative to the file. Errors: not_found, invalid.
Result<ServeConfig> load_config(const std::filesystem::path& file);

// The same, from text.
Result<ServeConfig> parse_config(const std::string& yaml, const std::filesystem::path& base = ".");

// "1073741824", "512MiB", "2 GiB", "1.5GB". Errors: invalid.
Result<std::uint64_t> parse_bytes(std::string_view text);

// Errors: invalid, naming what cannot be (no instances, decode without prefill, ...).
Status validate(const PoolConfig& config);

}  // namespace switchyard::pool
