// Memory that a Python object has lent: through the buffer protocol, or through DLPack where it has no
// buffers. The object stays alive, and an object that could move its memory (bytearray) refuses to, until it
// is given back.
//
// Threads: needs the GIL to be made and to be destroyed. Giving back calls foreign code.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "dlpack.h"

namespace switchyard::python {

namespace nb = nanobind;

class Exported {
 public:
  Exported() = default;
  // Any host memory. `what` names it in errors. Raises Invalid (no such protocol), Unsupported (of a device).
  Exported(nb::handle object, const char* what);
  // Memory of no protocol, which `owner` (perhaps None) keeps alive.
  static Exported kept_by(nb::object owner, void* data, std::size_t bytes);
  Exported(Exported&& other) noexcept { *this = std::move(other); }
  Exported& operator=(Exported&& other) noexcept;
  ~Exported();

  // Raises Denied for read-only memory.
  void require_writable(const char* what) const;
  // Raises Invalid for memory with gaps.
  void require_contiguous(const char* what) const;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  bool read_only() const { return read_only_; }

  // Where the elements are whole numbers in one dimension.
  struct Integers {
    const std::byte* data;
    std::ptrdiff_t count;
    std::ptrdiff_t stride;  // bytes
    int size;               // of an element, bytes
    bool is_signed;
  };
  // Raises Invalid otherwise.
  Integers integers(const char* what) const;

 private:
  void take_buffer(nb::handle object, const char* what);
  void take_dlpack(nb::handle object, const char* what);

  enum class Kind { none, buffer, dlpack, dlpack_versioned, object } kind_ = Kind::none;
  std::unique_ptr<Py_buffer> buffer_;  // may point into itself: not to be moved
  void* managed_ = nullptr;
  const dlpack::Tensor* tensor_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  bool read_only_ = false;
  bool contiguous_ = false;
};

// Where memory waits that was let go by a thread without the GIL. It is given back by the next call into the
// module, or by the interpreter's main thread, whichever comes first.
class Returned : public std::enable_shared_from_this<Returned> {
 public:
  // Any thread; takes no GIL.
  void put(Exported memory);
  // With the GIL.
  void give_back();

 private:
  std::mutex mutex_;
  std::vector<Exported> waiting_;
};

}  // namespace switchyard::python
