"""The gateway to a JVM: py4j's, but that no connection is left open behind it.

py4j leaves the socket of a connection that was refused to the garbage collector, and makes new
connections for objects that die after the gateway was closed: to a port that may be another JVM's
by then. Knows py4j, which comes with the simulators' packages: import it where a JVM starts.
"""

from typing import Any

from py4j.java_gateway import (
    GatewayClient,
    GatewayConnection,
    GatewayParameters,
    JavaGateway,
)


class Gateway(JavaGateway):
    """A gateway that lives once: after `close` nothing is sent any more, and every socket is shut.

    Args:
        port: where the JVM listens.
        token: what it asks of those who call.
        timeout_s: wall-clock limit of one call, in seconds.
    """

    def __init__(self, *, port: int, token: str, timeout_s: float):
        super().__init__(
            gateway_parameters=GatewayParameters(
                port=port, auth_token=token, read_timeout=timeout_s
            )
        )

    def close(self) -> None:
        """Shut all connections; objects of the JVM that die later are not told to it."""
        self._gateway_client.is_connected = False
        self._gateway_client.close()

    def _create_gateway_client(self) -> Any:
        return _Client(gateway_parameters=self.gateway_parameters)


class _Client(GatewayClient):
    """Closes what it could not connect."""

    def _create_connection(self) -> Any:
        connection = GatewayConnection(self.gateway_parameters, self.gateway_property)
        try:
            connection.start()
        except BaseException:
            # Its own `close` wants a stream, which a refused connection has not.
            if hasattr(connection, "stream"):
                connection.stream.close()
            connection.socket.close()
            raise
        return connection

    def _give_back_connection(self, connection: Any) -> None:
        if self.is_connected:
            super()._give_back_connection(connection)
        else:  # closed while another thread was calling
            connection.close()
