// What `switchyard serve` serves and with what, from a YAML file and the command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::pool {

struct PoolConfig {
  std::filesystem::path model;  // checkpoint: file or directory
  std::string served_name;      // in the API; empty: from the checkpoint's file name
  std::uint32_t prefill = 1;    // instances of each role
  std::uint32_t decode = 1;
  std::uint32_t unified = 0;
  std::string fabric = "auto";
  std::uint32_t threads = 0;                        // per instance; 0: one per core
  std::uint64_t kv_bytes = std::uint64_t{1} << 30;  // KV memory per instance
  std::uint32_t max_queue = 1024;                   // requests that are waiting or running
  bool control_tls = false;                         // messages between processes are encrypted
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
