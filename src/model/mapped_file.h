// A file mapped read-only, whole, and kept open.
//
// The pages come from the page cache and are shared by all who map the file. Should another program make the
// file shorter while it is mapped, touching what was cut off ends the process (SIGBUS): checkpoints and
// images are replaced by renaming, never changed in place. Movable; reading from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "switchyard/result.h"

namespace switchyard::model {

class MappedFile {
 public:
  // Errors: not_found, denied, invalid (not a regular file), io. An empty file is an empty span.
  static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return bytes_; }
  // Copies a part without touching the mapping, so that a file that was cut short is an error, and lets the
  // page cache forget what was read. Errors: out_of_range, corrupt (shorter than it was), io.
  Status read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  int descriptor_ = -1;
  std::span<const std::byte> bytes_;
};

}  // namespace switchyard::model
