// Memory that other processes of the same user can map, found by a descriptor of the process that made it.
//
// It is anonymous (memfd): nothing stands in the file system, and it is gone when the last process that maps
// it ends, however that came about. Its size is sealed: nobody can cut off what others have mapped. Forked
// children do not have the pages. Move-only; any thread may use the memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/bytes.h"
#include "switchyard/result.h"

namespace switchyard {

// How another process finds it: /proc/PROCESS/fd/DESCRIPTOR. The inode tells a descriptor that was reused.
struct SharedMemoryName {
  std::int32_t process = 0;
  std::int32_t descriptor = -1;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;

  void write_to(ByteWriter& writer) const;
  static SharedMemoryName read_from(ByteReader& reader);
  friend bool operator==(const SharedMemoryName&, const SharedMemoryName&) = default;
};

class SharedMemory {
 public:
  enum class Access { read, write };

  // `label` stands in /proc/PID/maps. Pages come when first touched. Errors: invalid (0 bytes), exhausted.
  static Result<SharedMemory> create(const std::string& label, std::size_t bytes);
  // Maps what another process, or this one, has made. Errors: not_found (its maker has ended or let it go),
  // denied, exhausted, io.
  static Result<SharedMemory> open(const SharedMemoryName& name, Access access);

  SharedMemory() = default;
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  // Of the maker: gives the pages back at once, though others still map them, who read zeros from now on. The
  // object is empty then. Takes time with the pages that there are.
  void discard();

  std::byte* base() const { return memory_.data(); }
  std::size_t bytes() const { return memory_.size(); }
  std::span<std::byte> span() const { return memory_; }
  // By which others open it as long as the object lives that create() gave.
  const SharedMemoryName& name() const { return name_; }

 private:
  int descriptor_ = -1;
  std::span<std::byte> memory_;
  SharedMemoryName name_;
};

}  // namespace switchyard
