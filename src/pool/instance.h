// An instance: the process that holds one device share, its KV memory and one model, and plays one role.
#pragma once

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pool/messages.h"
#include "switchyard/result.h"

namespace switchyard::pool {

struct InstanceOptions {
  std::string name;
  Role role = Role::unified;
  std::filesystem::path model;
  std::string fabric = "auto";
  std::uint32_t threads = 0;
  std::uint64_t kv_bytes = 0;
  PeerAddress supervisor;
};

// Message size that every engine of a pool uses, for a model of this context length.
std::size_t pool_message_bytes(std::uint32_t context);

// Loads the model, says Hello to the supervisor and works until SIGTERM, or until the supervisor is gone.
// Blocks SIGTERM and SIGINT in the calling thread and those it starts: call it from main.
Status run_instance(const InstanceOptions& options);

}  // namespace switchyard::pool
