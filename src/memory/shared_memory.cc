#include "memory/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/system_limits.h"
#include "base/units.h"

namespace switchyard {
namespace {

// Nobody can shrink it: what is mapped can always be touched.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
// More than a process can map.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 47;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }
  int release() { return std::exchange(descriptor_, -1); }

 private:
  int descriptor_;
};

Result<std::span<std::byte>> map(int descriptor, std::size_t bytes, int protection) {
  void* base = mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
  if (base == MAP_FAILED) {
    const int error = errno;
    return fail(error == ENOMEM ? ErrorCode::exhausted : ErrorCode::io, "cannot map {} of shared memory: {}",
                format_bytes(bytes), error_text(error));
  }
  // Not fatal where the kernel has no transparent huge pages for shared memory.
  madvise(base, bytes, MADV_HUGEPAGE);
  // A child that is forked must not see these pages: they may be registered with the fabric.
  madvise(base, bytes, MADV_DONTFORK);
  return std::span(static_cast<std::byte*>(base), bytes);
}

ErrorCode code_of(int error) {
  if (error == ENOENT || error == ESRCH || error == ENXIO) return ErrorCode::not_found;
  if (error == EACCES || error == EPERM) return ErrorCode::denied;
  return ErrorCode::io;
}

bool is_named(const struct stat& status, const SharedMemoryName& name) {
  return S_ISREG(status.st_mode) && status.st_ino == name.inode && status.st_size >= 0 &&
         static_cast<std::uint64_t>(status.st_size) == name.bytes;
}

}  // namespace

void SharedMemoryName::write_to(ByteWriter& writer) const {
  writer.write(process);
  writer.write(descriptor);
  writer.write(inode);
  writer.write(bytes);
}

SharedMemoryName SharedMemoryName::read_from(ByteReader& reader) {
  SharedMemoryName name;
  name.process = reader.read<std::int32_t>();
  name.descriptor = reader.read<std::int32_t>();
  name.inode = reader.read<std::uint64_t>();
  name.bytes = reader.read<std::uint64_t>();
  return name;
}

Result<SharedMemory> SharedMemory::create(const std::string& label, std::size_t bytes) {
  if (bytes == 0) return fail(ErrorCode::invalid, "shared memory '{}' of 0 bytes was asked for", label);
  if (bytes > kMostBytes) {
    return fail(ErrorCode::exhausted, "shared memory '{}' of {} is more than a process can map", label,
                format_bytes(bytes));
  }
  const auto error = [&](const char* what) {
    const int number = errno;
    const bool resource =
        number == ENOMEM || number == EMFILE || number == ENFILE || number == EFBIG || number == ENOSPC;
    return fail(resource ? ErrorCode::exhausted : ErrorCode::io, "cannot {} shared memory '{}' of {}: {}",
                what, label, format_bytes(bytes), error_text(number));
  };
  constexpr std::size_t kMostLabel = 200;  // the kernel takes 249
  Descriptor file(memfd_create(label.substr(0, kMostLabel).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (file.get() < 0) return error("make");
  if (ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return error("size");
  if (fcntl(file.get(), F_ADD_SEALS, kSeals) != 0) return error("seal");
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return error("name");
  auto memory = map(file.get(), bytes, PROT_READ | PROT_WRITE);
  if (!memory) return fail_at(label, memory.error());
  SharedMemory result;
  result.memory_ = *memory;
  result.descriptor_ = file.release();
  result.name_ = {.process = getpid(),
                  .descriptor = result.descriptor_,
                  .inode = static_cast<std::uint64_t>(status.st_ino),
                  .bytes = bytes};
  return result;
}

Result<SharedMemory> SharedMemory::open(const SharedMemoryName& name, Access access) {
  const std::string path = fmt::format("/proc/{}/fd/{}", name.process, name.descriptor);
  const auto gone = [&] {
    return fail(ErrorCode::not_found, "the shared memory at {} ({}) is gone: its maker let it go", path,
                format_bytes(name.bytes));
  };
  if (name.process <= 0 || name.descriptor < 0 || name.bytes == 0) return gone();
  // Looked at before it is opened: the descriptor may be reused for what does not like to be opened.
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    const int error = errno;
    if (code_of(error) == ErrorCode::not_found) return gone();
    return fail(code_of(error), "cannot open the shared memory at {}: {}", path, error_text(error));
  }
  if (!is_named(status, name)) return gone();
  const bool writing = access == Access::write;
  const Descriptor file(
      ::open(path.c_str(), (writing ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (file.get() < 0) {
    const int error = errno;
    if (code_of(error) == ErrorCode::not_found) return gone();
    return fail(code_of(error), "cannot open the shared memory at {}: {}", path, error_text(error));
  }
  const int seals = fcntl(file.get(), F_GET_SEALS);
  if (fstat(file.get(), &status) != 0 || !is_named(status, name) || seals < 0 ||
      (seals & F_SEAL_SHRINK) == 0) {
    return gone();
  }
  auto memory = map(file.get(), name.bytes, writing ? PROT_READ | PROT_WRITE : PROT_READ);
  if (!memory) return fail_at(path, memory.error());
  SharedMemory result;
  result.memory_ = *memory;
  result.name_ = name;
  return result;
}

void SharedMemory::discard() {
  if (descriptor_ >= 0 && fallocate(descriptor_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                                    static_cast<off_t>(memory_.size())) != 0) {
    log::warn("shared memory of {} stays until nobody maps it: {}", format_bytes(memory_.size()),
              error_text(errno));
  }
  *this = SharedMemory();
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept { *this = std::move(other); }

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(memory_, other.memory_);
  std::swap(name_, other.name_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (!memory_.empty()) munmap(memory_.data(), memory_.size());
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace switchyard
