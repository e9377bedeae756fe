#include "fabric/verbs_library.h"

#include <dlfcn.h>

namespace switchyard::fabric {
namespace {

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

Result<VerbsLibrary> VerbsLibrary::load() {
  void* library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    return fail(ErrorCode::unsupported,
                "libibverbs is not installed; install the packages libibverbs1 and ibverbs-providers");
  }
  VerbsLibrary verbs;
  const bool complete =
      find(library, "ibv_get_device_list", verbs.get_device_list) &&
      find(library, "ibv_free_device_list", verbs.free_device_list) &&
      find(library, "ibv_get_device_name", verbs.get_device_name) &&
      find(library, "ibv_open_device", verbs.open_device) &&
      find(library, "ibv_close_device", verbs.close_device) &&
      find(library, "ibv_query_device", verbs.query_device) &&
      find(library, "_ibv_query_gid_ex", verbs.query_gid) &&
      find(library, "ibv_get_async_event", verbs.get_async_event) &&
      find(library, "ibv_ack_async_event", verbs.ack_async_event) &&
      find(library, "ibv_alloc_pd", verbs.alloc_pd) && find(library, "ibv_dealloc_pd", verbs.dealloc_pd) &&
      find(library, "ibv_reg_mr_iova2", verbs.reg_mr) && find(library, "ibv_dereg_mr", verbs.dereg_mr) &&
      find(library, "ibv_create_comp_channel", verbs.create_comp_channel) &&
      find(library, "ibv_destroy_comp_channel", verbs.destroy_comp_channel) &&
      find(library, "ibv_create_cq", verbs.create_cq) && find(library, "ibv_destroy_cq", verbs.destroy_cq) &&
      find(library, "ibv_get_cq_event", verbs.get_cq_event) &&
      find(library, "ibv_ack_cq_events", verbs.ack_cq_events) &&
      find(library, "ibv_create_srq", verbs.create_srq) &&
      find(library, "ibv_destroy_srq", verbs.destroy_srq) &&
      find(library, "ibv_create_qp", verbs.create_qp) && find(library, "ibv_modify_qp", verbs.modify_qp) &&
      find(library, "ibv_destroy_qp", verbs.destroy_qp) &&
      find(library, "ibv_wc_status_str", verbs.status_text);
  find(library, "ibv_reg_dmabuf_mr", verbs.reg_dmabuf_mr);
  if (!complete) {
    return fail(
        ErrorCode::unsupported,
        "libibverbs is older than version 35; upgrade the packages libibverbs1 and ibverbs-providers");
  }
  return verbs;
}

}  // namespace switchyard::fabric
