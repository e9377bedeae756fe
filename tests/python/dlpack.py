"""DLPack producers of every kind, without a framework: a library's tensors as the protocol shows them."""

import ctypes

CPU, CUDA = 1, 2
INT, UINT, FLOAT = 0, 1, 2
READ_ONLY = 1


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Managed(ctypes.Structure):
    _fields_ = [("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Producer:
    """Shows `memory`, a bytearray or a ctypes array, as a tensor. `lent` counts capsules that were not given back."""

    lent = 0

    def __init__(
        self,
        memory,
        shape,
        *,
        strides=None,
        dtype=(UINT, 8),
        offset=0,
        device=CPU,
        version=(1, 0),
        flags=0,
        capsule_name=None,
    ):
        self._memory = (ctypes.c_char * len(memory)).from_buffer(memory)
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._strides = (ctypes.c_int64 * len(shape))(*strides) if strides is not None else None
        self._dtype = dtype
        self._offset = offset
        self._device = device
        self._version = version
        self._flags = flags
        self._name = capsule_name
        self._kept = []

    def __dlpack_device__(self):
        return (self._device, 0)

    def _tensor(self):
        return Tensor(
            ctypes.addressof(self._memory),
            self._device,
            0,
            len(self._shape),
            *self._dtype,
            1,
            self._shape,
            self._strides,
            self._offset,
        )

    def __dlpack__(self, **options):
        if self._version is None:  # from before versions
            if options:
                raise TypeError("unexpected keyword argument 'max_version'")
            managed, name = Managed(tensor=self._tensor()), b"dltensor"
        else:
            managed, name = ManagedVersioned(*self._version, flags=self._flags, tensor=self._tensor()), b"dltensor_versioned"

        def give_back(_):
            self.lent -= 1

        deleter = DELETER(give_back)
        managed.deleter = ctypes.cast(deleter, ctypes.c_void_p)
        name = self._name or name
        self._kept.append((managed, deleter, name))
        self.lent += 1
        return new_capsule(ctypes.addressof(managed), name, None)
