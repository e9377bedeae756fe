#include "model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace switchyard::model {
namespace {

ErrorCode code_of(int error) {
  if (error == ENOENT || error == ENOTDIR) return ErrorCode::not_found;
  if (error == EACCES || error == EPERM) return ErrorCode::denied;
  return ErrorCode::io;
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return fail(code_of(errno), "cannot open {}: {}", path.string(), std::strerror(errno));
  struct stat status {};
  MappedFile mapped;
  if (fstat(file, &status) != 0) {
    const int error = errno;
    ::close(file);
    return fail(ErrorCode::io, "cannot read the size of {}: {}", path.string(), std::strerror(error));
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(file);
    return fail(ErrorCode::invalid, "{} is not a regular file", path.string());
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  const int error = errno;
  ::close(file);
  if (address == MAP_FAILED) {
    return fail(ErrorCode::io, "cannot map the {} bytes of {}: {}", size, path.string(),
                std::strerror(error));
  }
  if (size != 0) mapped.bytes_ = {static_cast<const std::byte*>(address), size};
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace switchyard::model
