#include "exported.h"

#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "errors.h"

namespace switchyard::python {
namespace {

bool is_contiguous(const dlpack::Tensor& tensor) {
  if (tensor.strides == nullptr) return true;
  // Compact in either order of the axes; axes of length 1 may have any stride.
  std::int64_t rows = 1, columns = 1;
  bool row_major = true, column_major = true;
  for (std::int32_t i = 0; i < tensor.ndim; ++i) {
    const std::int32_t last = tensor.ndim - 1 - i;
    if (tensor.shape[last] != 1 && tensor.strides[last] != rows) row_major = false;
    if (tensor.shape[i] != 1 && tensor.strides[i] != columns) column_major = false;
    rows *= tensor.shape[last];
    columns *= tensor.shape[i];
  }
  return row_major || column_major;
}

nb::object capsule_of(nb::handle object) {
  nb::object make = object.attr("__dlpack__");
  try {
    return make(nb::arg("max_version") = nb::make_tuple(1, 0));
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // a producer from before versions
  }
  return make();
}

// Whether a buffer's format names object pointers. Names of fields stand between colons.
bool holds_objects(const char* format) {
  bool is_name = false;
  for (; format != nullptr && *format != '\0'; ++format) {
    if (*format == ':') is_name = !is_name;
    if (*format == 'O' && !is_name) return true;
  }
  return false;
}

}  // namespace

Exported::Exported(nb::handle object, const char* what) : Exported() {
  if (PyObject_CheckBuffer(object.ptr()) != 0) {
    take_buffer(object, what);
  } else if (nb::hasattr(object, "__dlpack__") && nb::hasattr(object, "__dlpack_device__")) {
    take_dlpack(object, what);
  } else {
    raise(ErrorCode::invalid, "{}: {} has neither the buffer protocol nor DLPack", what,
          Py_TYPE(object.ptr())->tp_name);
  }
}

Exported Exported::kept_by(nb::object owner, void* data, std::size_t bytes) {
  Exported result;
  result.kind_ = Kind::object;
  result.managed_ = owner.release().ptr();
  result.data_ = static_cast<std::byte*>(data);
  result.bytes_ = bytes;
  result.contiguous_ = true;
  return result;
}

void Exported::take_buffer(nb::handle object, const char* what) {
  auto buffer = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(object.ptr(), buffer.get(), PyBUF_FULL_RO) != 0) throw nb::python_error();
  if (holds_objects(buffer->format)) {
    PyBuffer_Release(buffer.get());
    raise(ErrorCode::invalid, "{}: the memory holds Python objects, whose addresses mean nothing elsewhere",
          what);
  }
  buffer_ = std::move(buffer);
  kind_ = Kind::buffer;
  data_ = static_cast<std::byte*>(buffer_->buf);
  bytes_ = static_cast<std::size_t>(buffer_->len);
  read_only_ = buffer_->readonly != 0;
  contiguous_ = PyBuffer_IsContiguous(buffer_.get(), 'A') != 0;
}

void Exported::take_dlpack(nb::handle object, const char* what) {
  const nb::object device = object.attr("__dlpack_device__")();
  const int type = nb::cast<int>(nb::int_(device[0]));
  if (type != dlpack::kCpu && type != dlpack::kCudaHost && type != dlpack::kRocmHost) {
    raise(
        ErrorCode::unsupported,
        "{}: memory of a device (DLPack device type {}{}); copy it to host memory, or export it as a DMA-BUF "
        "for register_dmabuf()",
        what, type,
        type == dlpack::kCuda   ? ", CUDA"
        : type == dlpack::kRocm ? ", ROCm"
                                : "");
  }
  const nb::object capsule = capsule_of(object);
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    auto* managed =
        static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != 1) {
      raise(ErrorCode::unsupported, "{}: DLPack version {}.{}, of which only 1.x is known", what,
            managed->version.major, managed->version.minor);
    }
    PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
    kind_ = Kind::dlpack_versioned;
    managed_ = managed;
    tensor_ = &managed->tensor;
    read_only_ = (managed->flags & dlpack::ManagedVersioned::kReadOnly) != 0;
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor") != 0) {
    auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    PyCapsule_SetName(capsule.ptr(), "used_dltensor");
    kind_ = Kind::dlpack;
    managed_ = managed;
    tensor_ = &managed->tensor;
  } else {
    raise(ErrorCode::invalid, "{}: __dlpack__ of {} gave no DLPack capsule", what,
          Py_TYPE(object.ptr())->tp_name);
  }
  data_ = static_cast<std::byte*>(tensor_->data) + tensor_->byte_offset;
  std::uint64_t bits = std::uint64_t{tensor_->dtype.bits} * tensor_->dtype.lanes;
  for (std::int32_t i = 0; i < tensor_->ndim; ++i) bits *= static_cast<std::uint64_t>(tensor_->shape[i]);
  bytes_ = bits / 8;
  contiguous_ = is_contiguous(*tensor_);
}

Exported& Exported::operator=(Exported&& other) noexcept {
  std::swap(kind_, other.kind_);
  std::swap(managed_, other.managed_);
  std::swap(tensor_, other.tensor_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(read_only_, other.read_only_);
  std::swap(contiguous_, other.contiguous_);
  std::swap(buffer_, other.buffer_);
  return *this;
}

Exported::~Exported() {
  switch (kind_) {
    case Kind::none:
      break;
    case Kind::object:
      Py_XDECREF(static_cast<PyObject*>(managed_));
      break;
    case Kind::buffer:
      PyBuffer_Release(buffer_.get());
      break;
    case Kind::dlpack:
      if (auto* managed = static_cast<dlpack::Managed*>(managed_); managed->deleter != nullptr) {
        managed->deleter(managed);
      }
      break;
    case Kind::dlpack_versioned:
      if (auto* managed = static_cast<dlpack::ManagedVersioned*>(managed_); managed->deleter != nullptr) {
        managed->deleter(managed);
      }
      break;
  }
}

void Exported::require_writable(const char* what) const {
  if (read_only_) {
    raise(ErrorCode::denied, "{}: the memory is read-only, and peers may write into a region; use a copy",
          what);
  }
}

void Exported::require_contiguous(const char* what) const {
  if (!contiguous_) raise(ErrorCode::invalid, "{}: the memory is not contiguous; use a copy", what);
}

Exported::Integers Exported::integers(const char* what) const {
  Integers result{data_, 0, 0, 0, false};
  int dimensions = 0;
  bool whole = false;
  if (kind_ == Kind::buffer) {
    dimensions = buffer_->ndim;
    std::string_view format = buffer_->format != nullptr ? buffer_->format : "B";
    if (!format.empty() && (format[0] == '@' || format[0] == '=' || format[0] == '<'))
      format.remove_prefix(1);
    result.size = static_cast<int>(buffer_->itemsize);
    result.is_signed = format.size() == 1 && std::strchr("hilqn", format[0]) != nullptr;
    whole = result.is_signed || (format.size() == 1 && std::strchr("HILQN", format[0]) != nullptr);
    if (dimensions == 1) {
      result.count = buffer_->shape != nullptr ? buffer_->shape[0] : buffer_->len / buffer_->itemsize;
      result.stride = buffer_->strides != nullptr ? buffer_->strides[0] : buffer_->itemsize;
    }
    if (buffer_->suboffsets != nullptr) whole = false;
  } else if (tensor_ != nullptr) {
    dimensions = tensor_->ndim;
    result.size = tensor_->dtype.bits / 8;
    result.is_signed = tensor_->dtype.code == dlpack::kInt;
    whole = tensor_->dtype.lanes == 1 && (result.is_signed || tensor_->dtype.code == dlpack::kUint) &&
            (result.size == 2 || result.size == 4 || result.size == 8);
    if (dimensions == 1) {
      result.count = tensor_->shape[0];
      result.stride = (tensor_->strides != nullptr ? tensor_->strides[0] : 1) * result.size;
    }
  }
  if (dimensions != 1 || !whole) {
    raise(ErrorCode::invalid, "{}: not a list of whole numbers in one dimension, of 16, 32 or 64 bits each",
          what);
  }
  return result;
}

void Returned::put(Exported memory) {
  bool first;
  {
    std::lock_guard lock(mutex_);
    first = waiting_.empty();
    waiting_.push_back(std::move(memory));
  }
  if (!first) return;
  auto* self = new std::shared_ptr<Returned>(shared_from_this());
  const auto run = [](void* argument) {
    std::unique_ptr<std::shared_ptr<Returned>> returned(static_cast<std::shared_ptr<Returned>*>(argument));
    (*returned)->give_back();
    return 0;
  };
  // A full queue is no harm: the next call into the module does it.
  if (Py_AddPendingCall(run, self) != 0) delete self;
}

void Returned::give_back() {
  std::vector<Exported> taken;
  {
    std::lock_guard lock(mutex_);
    taken.swap(waiting_);
  }
}

}  // namespace switchyard::python
