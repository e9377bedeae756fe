#include "memory/shared_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <utility>

namespace switchyard {
namespace {

constexpr std::size_t kBytes = 3 << 20;

// Runs `body` in a process of its own; true when it returned true.
template <class F>
bool in_child(F&& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body() ? 0 : 1);
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

ErrorCode code_of_opening(const SharedMemoryName& name,
                          SharedMemory::Access access = SharedMemory::Access::read) {
  const auto opened = SharedMemory::open(name, access);
  EXPECT_FALSE(opened);
  return opened ? ErrorCode::io : opened.error().code;
}

TEST(SharedMemory, IsZeroAlignedAndNamed) {
  const auto memory = SharedMemory::create("switchyard-test", kBytes);
  ASSERT_TRUE(memory) << memory.error().message;
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory->base()) % 4096, 0u);
  EXPECT_EQ(memory->bytes(), kBytes);
  EXPECT_EQ(memory->span().back(), std::byte{0});
  EXPECT_EQ(memory->name().process, getpid());
  EXPECT_EQ(memory->name().bytes, kBytes);
}

TEST(SharedMemory, AnotherProcessReadsAndWritesIt) {
  const auto memory = *SharedMemory::create("switchyard-test", kBytes);
  memory.base()[0] = std::byte{1};
  memory.base()[kBytes - 1] = std::byte{2};
  EXPECT_TRUE(in_child([name = memory.name()] {
    const auto read = SharedMemory::open(name, SharedMemory::Access::read);
    const auto write = SharedMemory::open(name, SharedMemory::Access::write);
    if (!read || !write || read->base()[0] != std::byte{1}) return false;
    if (read->base()[kBytes - 1] != std::byte{2} || read->bytes() != kBytes) return false;
    write->base()[7] = std::byte{3};
    return read->base()[7] == std::byte{3};
  }));
  EXPECT_EQ(memory.base()[7], std::byte{3});
}

TEST(SharedMemory, LastsAsLongAsSomebodyMapsIt) {
  std::optional<SharedMemory> maker = *SharedMemory::create("switchyard-test", kBytes);
  maker->base()[5] = std::byte{9};
  const auto reader = SharedMemory::open(maker->name(), SharedMemory::Access::read);
  ASSERT_TRUE(reader);
  maker.reset();
  EXPECT_EQ(reader->base()[5], std::byte{9});
}

TEST(SharedMemory, WhatItsMakerDiscardsIsGoneForAll) {
  auto memory = *SharedMemory::create("switchyard-test", kBytes);
  const auto name = memory.name();
  std::memset(memory.base(), 1, kBytes);
  const auto other = SharedMemory::open(name, SharedMemory::Access::read);
  ASSERT_TRUE(other);
  EXPECT_EQ(other->base()[kBytes - 1], std::byte{1});
  memory.discard();
  EXPECT_EQ(memory.bytes(), 0u);
  EXPECT_EQ(other->base()[0], std::byte{0});
  EXPECT_EQ(other->base()[kBytes - 1], std::byte{0});
  EXPECT_EQ(code_of_opening(name), ErrorCode::not_found);
  memory.discard();  // of nothing
}

TEST(SharedMemory, IsNotFoundWhenItsMakerHasLetItGo) {
  SharedMemoryName name;
  {
    const auto memory = *SharedMemory::create("switchyard-test", kBytes);
    name = memory.name();
  }
  EXPECT_EQ(code_of_opening(name), ErrorCode::not_found);
}

TEST(SharedMemory, IsNotFoundWhenItsMakerHasEnded) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  ASSERT_TRUE(in_child([&ends] {
    const auto memory = SharedMemory::create("switchyard-test", kBytes);
    return memory && write(ends[1], &memory->name(), sizeof(SharedMemoryName)) == sizeof(SharedMemoryName);
  }));
  SharedMemoryName name;
  ASSERT_EQ(read(ends[0], &name, sizeof(name)), static_cast<ssize_t>(sizeof(name)));
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(code_of_opening(name), ErrorCode::not_found);
}

TEST(SharedMemory, ADescriptorThatWasReusedIsNotTaken) {
  std::optional<SharedMemory> first = *SharedMemory::create("switchyard-test", kBytes);
  const SharedMemoryName old = first->name();
  first.reset();
  // The lowest free number is given out again.
  const auto second = *SharedMemory::create("switchyard-test", kBytes);
  ASSERT_EQ(second.name().descriptor, old.descriptor);
  EXPECT_EQ(code_of_opening(old), ErrorCode::not_found);
  // Nor is anything else that has come to stand there.
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  SharedMemoryName pipe_name = second.name();
  pipe_name.descriptor = ends[0];
  EXPECT_EQ(code_of_opening(pipe_name), ErrorCode::not_found);
  close(ends[0]);
  close(ends[1]);
}

TEST(SharedMemory, AMemoryThatCouldShrinkIsNotTaken) {
  const int file = memfd_create("switchyard-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_GE(file, 0);
  ASSERT_EQ(ftruncate(file, 4096), 0);
  const auto real = *SharedMemory::create("switchyard-test", 4096);
  struct stat status {};
  ASSERT_EQ(fstat(file, &status), 0);
  SharedMemoryName name = real.name();
  name.descriptor = file;
  name.inode = status.st_ino;
  EXPECT_EQ(code_of_opening(name), ErrorCode::not_found);
  close(file);
  EXPECT_NE(ftruncate(real.name().descriptor, 100), 0);
  EXPECT_NE(ftruncate(real.name().descriptor, 1 << 20), 0);
}

TEST(SharedMemory, NamesThatMakeNoSense) {
  const auto memory = *SharedMemory::create("switchyard-test", kBytes);
  SharedMemoryName name = memory.name();
  name.bytes += 1;
  EXPECT_EQ(code_of_opening(name), ErrorCode::not_found);
  EXPECT_EQ(code_of_opening({}), ErrorCode::not_found);
  EXPECT_EQ(code_of_opening({.process = -1, .descriptor = 1, .inode = 1, .bytes = 1}), ErrorCode::not_found);
  EXPECT_EQ(code_of_opening({.process = 1 << 30, .descriptor = 1, .inode = 1, .bytes = 1}),
            ErrorCode::not_found);
}

TEST(SharedMemory, AbsurdSizesAreErrors) {
  EXPECT_EQ(SharedMemory::create("switchyard-test", 0).error().code, ErrorCode::invalid);
  EXPECT_EQ(SharedMemory::create("switchyard-test", SIZE_MAX).error().code, ErrorCode::exhausted);
}

TEST(SharedMemory, NamesAreReadAsTheyWereWritten) {
  const SharedMemoryName name{.process = 7, .descriptor = 9, .inode = 1234567890123, .bytes = 42};
  ByteWriter writer;
  name.write_to(writer);
  ByteReader reader(writer.bytes());
  EXPECT_EQ(SharedMemoryName::read_from(reader), name);
  EXPECT_TRUE(reader.finished());
  ByteReader shorter(writer.bytes().first(10));
  (void)SharedMemoryName::read_from(shorter);
  EXPECT_FALSE(shorter.ok());
}

TEST(SharedMemory, MovesTakeTheMemoryAlong) {
  auto first = *SharedMemory::create("switchyard-test", kBytes);
  first.base()[3] = std::byte{4};
  const SharedMemoryName name = first.name();
  const SharedMemory second = std::move(first);
  EXPECT_EQ(second.base()[3], std::byte{4});
  EXPECT_TRUE(SharedMemory::open(name, SharedMemory::Access::read));
}

}  // namespace
}  // namespace switchyard
