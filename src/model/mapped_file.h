// A file mapped read-only, whole.
//
// The pages come from the page cache and are shared by all who map the file. Should another program make the
// file shorter while it is mapped, touching what was cut off ends the process (SIGBUS): checkpoints and
// images are replaced by renaming, never changed in place. Movable; reading from any thread.
#pragma once

#include <cstddef>
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

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace switchyard::model
