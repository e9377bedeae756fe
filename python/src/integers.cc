#include "integers.h"

#include <cstring>
#include <utility>

#include "errors.h"
#include "exported.h"

namespace switchyard::python {
namespace {

void check_count(std::size_t count, const char* what, std::size_t limit) {
  if (count > limit) raise(ErrorCode::out_of_range, "{}: {} are more than {}", what, count, limit);
}

template <class From, class T>
void copy(const Exported::Integers& from, std::vector<T>& to, const char* what) {
  for (std::size_t i = 0; i < to.size(); ++i) {
    From value;
    std::memcpy(&value, from.data + static_cast<std::ptrdiff_t>(i) * from.stride, sizeof value);
    if (!std::in_range<T>(value)) raise(ErrorCode::out_of_range, "{}[{}] is {}", what, i, value);
    to[i] = static_cast<T>(value);
  }
}

template <class T>
std::vector<T> read_array(const Exported& array, const char* what, std::size_t limit) {
  const Exported::Integers from = array.integers(what);
  check_count(static_cast<std::size_t>(from.count), what, limit);
  std::vector<T> numbers(static_cast<std::size_t>(from.count));
  if (from.size == sizeof(T) && !from.is_signed && from.stride == sizeof(T)) {
    if (!numbers.empty()) std::memcpy(numbers.data(), from.data, sizeof(T) * numbers.size());
    return numbers;
  }
  switch (from.size * (from.is_signed ? -1 : 1)) {
    case 2:
      copy<std::uint16_t>(from, numbers, what);
      break;
    case -2:
      copy<std::int16_t>(from, numbers, what);
      break;
    case 4:
      copy<std::uint32_t>(from, numbers, what);
      break;
    case -4:
      copy<std::int32_t>(from, numbers, what);
      break;
    case 8:
      copy<std::uint64_t>(from, numbers, what);
      break;
    case -8:
      copy<std::int64_t>(from, numbers, what);
      break;
    default:
      raise(ErrorCode::invalid, "{}: numbers of {} bytes", what, from.size);
  }
  return numbers;
}

}  // namespace

template <class T>
std::vector<T> read_integers(nb::handle object, const char* what, std::size_t limit) {
  if (PyObject_CheckBuffer(object.ptr()) != 0 || nb::hasattr(object, "__dlpack__")) {
    return read_array<T>(Exported(object, what), what, limit);
  }
  nb::object list =
      nb::steal(PySequence_Fast(object.ptr(), "whole numbers are to be in a sequence or an array"));
  if (!list.is_valid()) throw nb::python_error();
  const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list.ptr()));
  check_count(count, what, limit);
  std::vector<T> numbers(count);
  for (std::size_t i = 0; i < count; ++i) {
    // __index__ of an element is foreign code, which may shorten the list.
    if (static_cast<std::size_t>(PySequence_Fast_GET_SIZE(list.ptr())) != count) {
      raise(ErrorCode::invalid, "{}: it changed while it was read", what);
    }
    nb::object item = nb::borrow(PySequence_Fast_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i)));
    nb::object number = nb::steal(PyNumber_Index(item.ptr()));
    if (!number.is_valid()) throw nb::python_error();
    const unsigned long value = PyLong_AsUnsignedLong(number.ptr());  // 64 bits
    if (PyErr_Occurred() != nullptr) {
      if (PyErr_ExceptionMatches(PyExc_OverflowError) == 0) throw nb::python_error();
      PyErr_Clear();
      raise(ErrorCode::out_of_range, "{}[{}] is negative or too large", what, i);
    }
    if (!std::in_range<T>(value)) raise(ErrorCode::out_of_range, "{}[{}] is {}", what, i, value);
    numbers[i] = static_cast<T>(value);
  }
  return numbers;
}

template std::vector<std::uint32_t> read_integers(nb::handle, const char*, std::size_t);
template std::vector<std::uint64_t> read_integers(nb::handle, const char*, std::size_t);

}  // namespace switchyard::python
