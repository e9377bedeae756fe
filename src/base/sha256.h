// SHA-256 of files and images.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "switchyard/result.h"

namespace switchyard {

using Sha256Digest = std::array<std::uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  Sha256Digest finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Lower-case hexadecimal, 64 characters.
std::string to_hex(const Sha256Digest& digest);

// Hash of a whole file. `progress(done, total)` is called about once a MiB. Errors: not_found, io.
Result<Sha256Digest> sha256_file(const std::filesystem::path& path,
                                 const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});

}  // namespace switchyard
