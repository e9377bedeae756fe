// The SHA-256 of a checkpoint: what names its model image.
//
// It covers names (without their folder), sizes and bytes of all files, in the order given. Reading gigabytes
// at each start would cost more than the start, so the hash of a file is remembered with its path, size,
// modification time and inode under cache_directory()/hashes; a file that changed in any of these is read
// again. Any thread; two processes may do it at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "switchyard/result.h"

namespace switchyard::model {

struct HashOptions {
  // Of the remembered hashes; empty: nothing is remembered. Default: cache_directory()/hashes.
  std::filesystem::path cache;
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // counts bytes that are read

  static HashOptions with_default_cache();
};

// Hexadecimal. A cache that cannot be written only costs time. Errors: not_found, io.
Result<std::string> hash_files(std::span<const std::filesystem::path> files, const HashOptions& options);

// hash_files() of checkpoint_files(). Errors: of both.
Result<std::string> hash_checkpoint(const std::filesystem::path& path, const HashOptions& options);

}  // namespace switchyard::model
